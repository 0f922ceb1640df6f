package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// parsers are all readers of what comes from outside, by the kind.
var parsers = map[Kind]func([]byte) ([]*Config, error){
	Docker:   func(b []byte) ([]*Config, error) { return ParseDocker(b, nil) },
	Podman:   func(b []byte) ([]*Config, error) { return ParsePodman(b, nil) },
	Bulkhead: ParseWorkload,
	OCI: func(b []byte) ([]*Config, error) {
		c, err := ParseOCI(b)
		if err != nil {
			return nil, err
		}
		return []*Config{c}, nil
	},
}

// TestMalformed: an error says in one sentence where something is wrong.
func TestMalformed(t *testing.T) {
	deep := strings.Repeat("[", 100) + strings.Repeat("]", 100)
	for _, tt := range []struct {
		name string
		kind Kind
		text string
		want string
	}{
		{"nothing", Docker, "", "line 1, column 1: the text ends in the middle"},
		{"half", Docker, "[\n{\"a\": ", "line 2"},
		{"a wrong word", Docker, "[\n  {\"HostConfig\": nul}]", "line 2"},
		{"two values", Docker, "[] []", "something follows the value"},
		{"a name twice", Docker, `[{"HostConfig": {"Privileged": true, "Privileged": false}}]`, `"Privileged" is there twice`},
		{"too deep", Docker, deep, "nested deeper than 64"},
		{"no UTF-8", Docker, "\"\xff\"", "not UTF-8"},
		{"a number for a list's element", Docker, `[1]`, "element 0 is a number, want an object"},
		{"another thing", Docker, `[{"ociVersion": "1.0.0"}]`, "HostConfig is null, want what `docker inspect` prints"},
		{"text for a flag", Docker, `[{"HostConfig": {"Privileged": "no"}}]`, "HostConfig.Privileged is a string, want true or false"},
		{"a number for text", Docker, `[{"HostConfig": {}, "Name": 3}]`, "Name is a number, want a string"},
		{"text in a list", Docker, `[{"HostConfig": {"CapAdd": ["A", 1], "CapDrop": null, "Privileged": false}}]`, "HostConfig.CapAdd[1] is a number, want a string"},
		{"an object for a list", Docker, `[{"HostConfig": {}, "Mounts": {}}]`, "Mounts is an object, want a list"},
		{"half a number", Docker, `[{"HostConfig": {"Memory": 1.5}}]`, "HostConfig.Memory is a number, want a whole number of 64 bits"},
		{"the second of two", Docker, `[{"HostConfig": {}}, {"HostConfig": 1}]`, "element 1 of the list"},
		{"a list for an object", Podman, `[{"HostConfig": {"PortBindings": []}, "BoundingCaps": []}]`, "HostConfig.PortBindings is a list, want an object"},
		{"a flag as text", Podman, `[{"HostConfig": {"ReadonlyRootfs": "true"}}]`, "HostConfig.ReadonlyRootfs is a string"},
		{"no version", OCI, `{"process": {}}`, "ociVersion is null"},
		{"no part for Linux", OCI, `{"ociVersion": "1.0.0"}`, "linux is null"},
		{"a number for a user", OCI, `{"ociVersion": "1.0.0", "linux": {}, "process": {"user": {"uid": "0"}}}`, "process.user.uid is a string, want a number"},
		{"a filter that is none", OCI, `{"ociVersion": "1.0.0", "linux": {"seccomp": {"syscalls": 1}}}`, "linux.seccomp is an object, want a seccomp profile"},
		{"a specification that is none", Bulkhead, `[{"Spec": {"process": 1}}]`, "Spec is an object, want the specification of a workload"},
		{"an image", Bulkhead, `[{"Id": "x"}]`, "Spec is null, want what `bulkhead inspect` prints"},
	} {
		_, err := parsers[tt.kind]([]byte(tt.text))
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	if _, err := ParseOCI(make([]byte, MaxInput+1)); !errors.Is(err, ErrMalformed) {
		t.Errorf("too large: %v", err)
	}
	if _, err := ParseDocker([]byte("["+strings.Repeat("{},", maxContainers)+"{}]"), nil); !errors.Is(err, ErrMalformed) {
		t.Errorf("too many: %v", err)
	}
	if _, err := ParseOCI([]byte("[" + strings.Repeat("0,", maxValues) + "0]")); !errors.Is(err, ErrMalformed) {
		t.Errorf("too many values: %v", err)
	}
}

// TestLarge: what is as large as may be takes seconds. Each of these took many minutes
// when it looked at all for each, or the memory of a path as long as a name for each.
func TestLarge(t *testing.T) {
	const n = 100_000
	numbered := func(prefix string) []any {
		out := make([]any, 4*n)
		for i := range out {
			out[i] = fmt.Sprint(prefix, i)
		}
		return out
	}
	list := func(elements ...any) (out []any) {
		for range n {
			out = append(out, elements...)
		}
		return out
	}
	of := func(pairs ...any) object {
		o := object{by: map[string]any{}}
		for i := 0; i < len(pairs); i += 2 {
			o.names = append(o.names, pairs[i].(string))
			o.by[pairs[i].(string)] = pairs[i+1]
		}
		return o
	}
	root := func(v any) node { return node{value: v, f: &fault{}} }
	strs := func(list []any) (out []string) {
		for _, s := range list {
			out = append(out, s.(string))
		}
		return out
	}
	for name, look := range map[string]func() int{
		"ports": func() int { return len(Workload(workload.Spec{Ports: make([]workload.Port, n)}, Facts{}).Ports.Value) },
		"rules for devices": func() int {
			c := &Config{}
			rules := list(of("allow", true, "type", "b", "major", json.Number("8")), of("allow", false, "type", "c"))
			ociDevices(c, root(of("resources", of("devices", rules))))
			return len(c.DeviceRules.Value)
		},
		"capabilities of a process": func() int {
			c := &Config{}
			ociProcess(c, root(of("capabilities", of("bounding", numbered("A"), "effective", numbered("B")))))
			return len(c.Caps.Value) / 8
		},
		"added capabilities": func() int { return len(tweak(nil, strs(numbered("A")), nil)) / 4 },
		"dropped capabilities": func() int {
			return len(ourCapabilities(workload.Security{CapAdd: strs(numbered("A")), CapDrop: append(strs(numbered("B")), "ALL")})) / 4
		},
		"a long name": func() int {
			text := `{"HostConfig": {"PortBindings": {"` + strings.Repeat("n", 8<<20) + `": [` + strings.Repeat("{},", n-1) + `{}]}}}`
			found, err := ParseDocker([]byte(text), nil)
			if err != nil {
				t.Error(err)
				return 0
			}
			return len(found[0].Ports.Value)
		},
	} {
		done := make(chan int, 1)
		go func() { done <- look() }()
		select {
		case got := <-done:
			if got != n {
				t.Errorf("%s: %d, want %d", name, got, n)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: not done after a minute", name)
		}
	}
}

func TestMalformedEngine(t *testing.T) {
	for _, tt := range []struct {
		kind       Kind
		text, want string
	}{
		{Docker, `{"SecurityOptions": {}}`, "SecurityOptions is an object"},
		{Docker, `[`, "line 1"},
		{Podman, `{"host": []}`, "host is a list"},
		{OCI, `{}`, "no engine"},
	} {
		if _, err := ParseEngine(tt.kind, []byte(tt.text)); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.text, err, tt.want)
		}
	}
}

// TestHostileNames: what a container is called reaches a report only in a form that
// fits one.
func TestHostileNames(t *testing.T) {
	text := `[{"Name": "/a\u001b[2J\n` + strings.Repeat("n", 5000) + `", "HostConfig": {"Privileged": true, "SecurityOpt": ["\u0000"]},
		"Mounts": [{"Type": "bind", "Source": "/etc\u001b", "RW": true}]}]`
	list, err := ParseDocker([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	encode(t, list)
}

// encode writes configurations as a document, which has limits.
func encode(t *testing.T, list []*Config) {
	t.Helper()
	for _, c := range list {
		d := report.Document{Format: report.Format, Kind: report.Audit, Time: time.Unix(0, 0).UTC(), Reports: []report.Report{Judge(c, "")}}
		if _, err := d.Encode(); err != nil {
			t.Error(err)
		}
	}
}

// fuzz runs a parser: what it takes can be judged and written.
func fuzz(f *testing.F, kind Kind) {
	files, err := filepath.Glob("testdata/*/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parsers[kind](b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("another error: %v", err)
			}
			return
		}
		encode(t, list[:min(len(list), 4)])
	})
}

func FuzzDocker(f *testing.F)   { fuzz(f, Docker) }
func FuzzPodman(f *testing.F)   { fuzz(f, Podman) }
func FuzzOCI(f *testing.F)      { fuzz(f, OCI) }
func FuzzWorkload(f *testing.F) { fuzz(f, Bulkhead) }

func FuzzEngine(f *testing.F) {
	f.Add([]byte(`{"ServerVersion": "28.5.2", "SecurityOptions": ["name=seccomp,profile=builtin", "name=userns"]}`), true)
	f.Add([]byte(`{"host": {"security": {"rootless": true}}, "version": {"Version": "5.0.0"}}`), false)
	f.Fuzz(func(t *testing.T, b []byte, docker bool) {
		kind := Podman
		if docker {
			kind = Docker
		}
		if _, err := ParseEngine(kind, b); err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("another error: %v", err)
		}
	})
}
