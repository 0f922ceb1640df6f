package cgroup

import (
	"path"
	"strings"
	"testing"
)

func TestParsePath(t *testing.T) {
	for _, c := range []struct{ in, base, want string }{
		{"/docker/ID", "", "/docker/ID"},
		{"docker/ID", "", "/bulkhead/docker/ID"},
		{"ID", "/user.slice", "/user.slice/ID"},
		{"/a//b/./c/", "", "/a/b/c"},
		{"/a/../b", "", "/b"},
		{"/../../../etc", "", "/etc"},
		{"../../x", "", "/bulkhead/x"},
		{"../../x", "../y", "/y/x"},
		{"a/../../..//x", "/base", "/base/x"},
		{"/system.slice:docker:ID", "", "/system.slice:docker:ID"},
		{"/with space", "", "/with space"},
	} {
		if got, err := ParsePath(c.in, c.base); err != nil || got != c.want {
			t.Errorf("%q below %q: %q, %v, want %q", c.in, c.base, got, err, c.want)
		}
	}
	for _, in := range []string{"", "/", "..", "/..", "a/..", "/a\n/b", "/a\x00", "/" + strings.Repeat("n", 256), strings.Repeat("/abc", 2000)} {
		if got, err := ParsePath(in, ""); err == nil {
			t.Errorf("%.20q: %q, want an error", in, got)
		}
	}
}

func TestParseSystemdPath(t *testing.T) {
	for in, want := range map[string]string{
		"system.slice:docker:ID":              "/system.slice/docker-ID.scope",
		"user-1000.slice:podman:ID":           "/user.slice/user-1000.slice/podman-ID.scope",
		":docker:ID":                          "/system.slice/docker-ID.scope",
		"-.slice:docker:ID":                   "/docker-ID.scope",
		"system.slice::ID":                    "/system.slice/ID.scope",
		"kubepods.slice::kubepods-pod1.slice": "/kubepods.slice/kubepods-pod1.slice",
	} {
		if got, err := ParseSystemdPath(in); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "a", "a:b", "a:b:c", "a.slice:b:", "a.slice:b:c:d", "a--b.slice:x:y", "-a.slice:x:y", "../a.slice:x:y",
		".slice:x:y", "a.slice:..:/../y", "a.slice:x/:y", strings.Repeat("a-", 2000) + "a.slice:x:y"} {
		if got, err := ParseSystemdPath(in); err == nil {
			t.Errorf("%.30q: %q, want an error", in, got)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"/docker/ID", "a/../../b", "user-1000.slice:podman:ID", "//", "-.slice::x"} {
		f.Add(s, "/base")
	}
	f.Fuzz(func(t *testing.T, s, base string) {
		for _, parse := range []func() (string, error){
			func() (string, error) { return ParsePath(s, base) },
			func() (string, error) { return ParseSystemdPath(s) },
		} {
			got, err := parse()
			if err != nil {
				continue
			}
			if got == "/" || !path.IsAbs(got) || path.Clean(got) != got || len(got) > maxPath || strings.ContainsAny(got, "\x00\n") {
				t.Errorf("%q below %q: %q", s, base, got)
			}
		}
		if got, err := ParsePath(s, "/base"); err == nil && !path.IsAbs(s) && !strings.HasPrefix(got, "/base/") {
			t.Errorf("%q left its base: %q", s, got)
		}
	})
}
