package reference_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	dist "github.com/distribution/reference"
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

func TestParseName(t *testing.T) {
	for _, in := range []string{"redis", "localhost:5000/x:1", "localhost/sha256:1", "team/sha256"} {
		if got, err := reference.ParseName(in); err != nil || got.Digest() != "" {
			t.Errorf("ParseName(%q) = %v, %v", in, got, err)
		}
	}
	for _, in := range []string{
		"", "A", "x@sha256:" + hex64, "x:1@sha256:" + hex64, "sha256", "sha256:" + hex64, "sha256:1", "library/sha256:1", "docker.io/library/sha256:" + hex64,
	} {
		if got, err := reference.ParseName(in); !errors.Is(err, reference.ErrInvalid) {
			t.Errorf("ParseName(%q) = %v, %v; want ErrInvalid", in, got, err)
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

// inOurWords is what the library that Docker uses makes of s, as far as it is
// for us: SHA-256 only.
func inOurWords(s string) (string, bool) {
	named, err := dist.ParseNormalizedNamed(s)
	if err != nil || len(s) > reference.MaxLength {
		return "", false
	}
	if d, ok := named.(dist.Digested); ok && d.Digest().Algorithm() != "sha256" {
		return "", false
	}
	// Where the first part is no host, the library ends up without a registry.
	return dist.TagNameOnly(named).String(), dist.Domain(named) != ""
}

var sameAnswers = []string{
	"redis", "a/b", "a/b/c:d", "A", "a/B", "A/b", "A.b/c", "a:b", "a:b/c", "a:5/c:d", "a:/b", "a.b", "a..b", "a...b/c", "a-b", "a--b", "a---b/x",
	"a_b", "a__b", "a___b", "a._b", "-a/b", "a-/b", "a-.b/c", "a.-b/c", "a.b-/c", "localhost", "localhost/a", "LOCALHOST/a", "localhost:1/a", "index.docker.io/a",
	"index.docker.io/a/b", "docker.io/a", "docker.io/library/a", "docker.io:443/a", "[::1]/a", "[::1]:5/a", "[]/a", "[::1/a", "[::1]x/a", "[g]/a", "1.2.3.4/a",
	"a@sha256:" + hex64, "a:b@sha256:" + hex64, "a@sha256:" + hex64 + "0", "a@SHA256:" + hex64, "a@@sha256:" + hex64, "a@sha256:" + hex64 + "@x",
	hex64, hex64 + "0", "x/" + hex64, "a:.b", "a:-b", "a:_b", "a:" + strings.Repeat("t", 128), "a:" + strings.Repeat("t", 129),
	strings.Repeat("a", 255), strings.Repeat("a", 247), strings.Repeat("a", 248), "x.y/" + strings.Repeat("a", 255), "x.y/" + strings.Repeat("a", 256),
	"a/", "/a", "a//b", "a.b/", "a b", "a\n", "\u00e9", "a:\u00e9", "a.b_c/x", "a_b.c/x", "a_b:1/x",
}

func checkSameAnswer(t *testing.T, s string) {
	t.Helper()
	want, ok := inOurWords(s)
	got, err := reference.Parse(s)
	if ok != (err == nil) || ok && got.String() != want {
		t.Errorf("Parse(%q) = %q, %v; the library says %q, %v", s, got, err, want, ok)
	}
}

func TestSameAnswersAsDocker(t *testing.T) {
	for _, s := range sameAnswers {
		checkSameAnswer(t, s)
	}
}

func FuzzSameAnswersAsDocker(f *testing.F) {
	for _, s := range sameAnswers {
		f.Add(s)
	}
	f.Fuzz(checkSameAnswer)
}
