package reference_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/image/reference"
)

const hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func ExampleParse() {
	r, err := reference.Parse("redis")
	fmt.Println(r, r.Familiar(), err)
	// Output: docker.io/library/redis:latest redis:latest <nil>
}

func TestParse(t *testing.T) {
	for _, tt := range []struct{ in, want, familiar string }{
		{"redis", "docker.io/library/redis:latest", "redis:latest"},
		{"redis:7", "docker.io/library/redis:7", "redis:7"},
		{"bitnami/redis", "docker.io/bitnami/redis:latest", "bitnami/redis:latest"},
		{"docker.io/redis", "docker.io/library/redis:latest", "redis:latest"},
		{"index.docker.io/library/redis", "docker.io/library/redis:latest", "redis:latest"},
		{"localhost/x", "localhost/x:latest", "localhost/x:latest"},
		{"localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest"},
		{"127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c"},
		{"[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"},
		{"quay.io/a/b@sha256:" + hex64, "quay.io/a/b@sha256:" + hex64, "quay.io/a/b@sha256:" + hex64},
		{"redis:7@sha256:" + hex64, "docker.io/library/redis:7@sha256:" + hex64, "redis:7@sha256:" + hex64},
		{"docker.io/library/localhost", "docker.io/library/localhost:latest", "localhost:latest"},
	} {
		got, err := reference.Parse(tt.in)
		if err != nil {
			t.Errorf("Parse(%q): %v", tt.in, err)
			continue
		}
		if got.String() != tt.want || got.Familiar() != tt.familiar {
			t.Errorf("Parse(%q) = %q, familiar %q; want %q, %q", tt.in, got, got.Familiar(), tt.want, tt.familiar)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, in := range []string{
		"", " ", "Redis", ":tag", "a:", "a@", "a@sha256:12", "a@sha512:" + hex64 + hex64, "a@md5:0123456789abcdef0123456789abcdef",
		"../x", "a/../b", "/a", "a//b", "a b", "a\x00", "a\nb", "http://a/b", hex64, "-a", "a:" + strings.Repeat("t", 129),
		strings.Repeat("a/", 200) + "a", strings.Repeat("a", 5000),
	} {
		got, err := reference.Parse(in)
		if !errors.Is(err, reference.ErrInvalid) {
			t.Errorf("Parse(%.40q) = %v, %v; want ErrInvalid", in, got, err)
		} else if len(err.Error()) > 700 || strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("Parse(%.40q): the error is not one clean line: %q", in, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"redis", "localhost:5000/x:y", "a/b@sha256:" + hex64, "A", "a:b@", "[::1]:1/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := reference.Parse(s)
		if err != nil {
			return
		}
		for _, form := range []string{r.String(), r.Familiar()} {
			if back, err := reference.Parse(form); err != nil || back != r {
				t.Errorf("Parse(%q) = %v, but Parse(%q) = %v, %v", s, r, form, back, err)
			}
		}
		if r.Registry() == "" || r.Repository() == "" || (r.Tag() == "" && r.Digest() == "") {
			t.Errorf("Parse(%q) left a part empty: %#v", s, r)
		}
	})
}
