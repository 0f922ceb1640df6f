package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/ocispec"
)

// call runs one command line and returns what it wrote.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	dir := t.TempDir()
	in, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	files := [2]*os.File{}
	for i, name := range []string{"out", "err"} {
		if files[i], err = os.Create(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		defer files[i].Close()
	}
	code = invoke(append([]string{"/usr/bin/bulkhead-oci"}, args...), in, files[0], files[1])
	text := [2]string{}
	for i, f := range files {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		text[i] = string(b)
	}
	return code, text[0], text[1]
}

func TestHelp(t *testing.T) {
	for _, v := range verbs() {
		for _, flag := range []string{"-h", "--help"} {
			code, out, errs := call(t, v.name, flag)
			if code != 0 || errs != "" || !strings.Contains(out, "bulkhead-oci "+v.name+" - "+v.summary) ||
				!strings.Contains(out, "EXAMPLE:\n   bulkhead-oci "+v.name) {
				t.Errorf("%s %s: %d, %q, %q", v.name, flag, code, out, errs)
			}
		}
	}
	if code, out, _ := call(t, "--help"); code != 0 || !strings.Contains(out, "\n   create ") {
		t.Errorf("--help: %d, %q", code, out)
	}
}

func TestMistakes(t *testing.T) {
	root := t.TempDir()
	for _, c := range []struct {
		line string
		code int
		want string
	}{
		{"fly", 3, "'fly'"},
		{"create --fly x", 1, "create: unknown flag --fly"},
		{"start", 1, "start: want the operands ID"},
		{"start a b", 1, "start: want the operands ID"},
		{"list a", 1, "list: want the operands none"},
		{"--log-format xml list", 1, "neither text nor json"},
		{"state none", 1, "container does not exist"},
		{"state ../none", 1, "invalid container ID"},
		{"kill none", 1, "container does not exist"},
		{"kill none FLY", 1, "FLY"},
		{"delete none", 1, "container does not exist"},
		{"exec none true", 255, "container does not exist"},
		{"pause none", 1, "container does not exist"},
		{"update none", 1, "container does not exist"},
		{"update --memory lots none", 1, `update --memory: "lots" is no size`},
		{"update --cpu-period -1 none", 1, "not between 0"},
		{"update --l3-cache-schema x none", 1, "not supported"},
		{"update --resources /no/such/file none", 1, "no such file"},
		{"events --interval 0 none", 1, "no duration above zero"},
		{"checkpoint x", 1, "checkpoint is not supported"},
		{"restore -no-subreaper x", 1, "restore is not supported"},
		{"list --format xml", 1, "neither table nor json"},
	} {
		code, _, errs := call(t, append([]string{"--root", root}, strings.Fields(c.line)...)...)
		if code != c.code || !strings.Contains(errs, c.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: %d, %q; want %d and one line with %q", c.line, code, errs, c.code, c.want)
		}
	}
	if left, _ := os.ReadDir(root); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestErrorsReachTheLogOfAnEngine(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log.json")
	code, _, errs := call(t, "--root", t.TempDir(), "--log", log, "--log-format", "json", "state", "none")
	var line struct{ Level, Msg, Time string }
	b, err := os.ReadFile(log)
	if err == nil {
		err = json.Unmarshal(b, &line)
	}
	if err != nil || line.Level != "error" || line.Msg != "container does not exist" || line.Time == "" {
		t.Errorf("log: %q, %v", b, err)
	}
	if code != 1 || errs != "container does not exist\n" {
		t.Errorf("got %d, %q", code, errs)
	}
}

func TestVersion(t *testing.T) {
	for _, flag := range []string{"-v", "--version"} {
		code, out, _ := call(t, flag)
		lines := strings.Split(out, "\n")
		if code != 0 || len(lines) < 3 || !strings.HasPrefix(lines[0], "bulkhead-oci version ") ||
			!strings.HasPrefix(lines[1], "commit: ") || lines[2] != "spec: "+specs.Version {
			t.Errorf("%s: %d, %q", flag, code, out)
		}
	}
}

func TestDeleteForceOfNothing(t *testing.T) {
	if code, _, errs := call(t, "--root", t.TempDir(), "delete", "--force", "none"); code != 0 || errs != "" {
		t.Errorf("got %d, %q", code, errs)
	}
}

func TestSpecIsAccepted(t *testing.T) {
	for _, args := range [][]string{{"spec"}, {"spec", "--rootless"}} {
		dir := t.TempDir()
		args = append(args, "--bundle", dir)
		if code, _, errs := call(t, args...); code != 0 {
			t.Fatalf("%v: %d, %q", args, code, errs)
		}
		if _, _, err := ocispec.Load(dir); err != nil {
			t.Errorf("%v: %v", args, err)
		}
		if code, _, errs := call(t, args...); code != 1 || !strings.Contains(errs, "exists") {
			t.Errorf("a second time: %d, %q; want that it does not overwrite", code, errs)
		}
	}
	for _, v2 := range []bool{false, true} {
		if err := ocispec.Validate(exampleSpec(v2)); err != nil {
			t.Errorf("cgroup namespace %v: %v", v2, err)
		}
	}
}

// TestSpecOnAFullDisk wants no half of a configuration left.
func TestSpecOnAFullDisk(t *testing.T) {
	name := filepath.Join(t.TempDir(), "config.json")
	if err := os.Symlink("/dev/full", name); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeSpec(f, exampleSpec(true)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what could not be written is there: %v", err)
	}
}

func TestList(t *testing.T) {
	root := t.TempDir()
	s := store{root}
	for _, id := range []string{"b", "a"} {
		e, err := s.create(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		r := &record{Version: "1.3.0", ID: id, Bundle: "/bundle\x1b[31m", Rootfs: "/r"}
		if err := e.keepConfig([]byte(config)); err != nil {
			t.Fatal(err)
		}
		if err := e.save(r); err != nil {
			t.Fatal(err)
		}
		// Process IDs are never this high: the container has stopped.
		made := `{"id":"` + id + `","pid":1073741824,"pidStart":1}`
		if err := os.WriteFile(filepath.Join(e.dir, "container.json"), []byte(made), 0o600); err != nil {
			t.Fatal(err)
		}
		e.Close()
	}
	_, out, _ := call(t, "--root", root, "list")
	lines := strings.Split(out, "\n")
	if !strings.HasPrefix(lines[0], "ID          PID         STATUS      BUNDLE") ||
		!strings.HasPrefix(lines[1], "a           0           stopped     \"/bundle\\x1b[31m\"") {
		t.Errorf("table:\n%s", out)
	}
	if _, out, _ = call(t, "--root", root, "list", "-q"); out != "a\nb\n" {
		t.Errorf("quiet: %q", out)
	}
	_, out, _ = call(t, "--root", root, "list", "--format", "json")
	want := `[{"ociVersion":"1.3.0","id":"a","pid":0,"status":"stopped","bundle":"/bundle`
	if !strings.HasPrefix(out, want) || strings.Count(out, "\n") != 1 {
		t.Errorf("json: %s\nwant %s…", out, want)
	}
	if _, out, _ = call(t, "--root", t.TempDir(), "list", "-f", "json"); out != "[]\n" {
		t.Errorf("an empty list is %q, want []", out)
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "-1": -1, "67108864": 67108864, "50M": 50 << 20, "50m": 50 << 20, "50MB": 50 << 20, "50MiB": 50 << 20,
		"1.5g": 3 << 29, "1k": 1024, "8p": 8 << 50, "5b": 5,
	} {
		if n, err := parseSize(s); err != nil || n != want {
			t.Errorf("%q: got %d, %v; want %d", s, n, err, want)
		}
	}
	for _, s := range []string{"", "x", "M", "-5", "5x", "1..5M", "9000000000000000000000", "9000p", "1 2", "0x10"} {
		if n, err := parseSize(s); err == nil {
			t.Errorf("%q: got %d, want an error", s, n)
		}
	}
}

func TestExecProcess(t *testing.T) {
	own := &specs.Process{Args: []string{"sh"}, Cwd: "/", Env: []string{"A=1"}, Terminal: true,
		User:         specs.User{UID: 1, GID: 2, AdditionalGids: []uint32{3}},
		Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}}}
	get := func(line string) (*specs.Process, error) {
		flags, args, err := parse(execOptions, strings.Fields(line), true)
		if err != nil {
			t.Fatal(err)
		}
		return (&command{flags: flags, args: args}).execProcess(own)
	}
	p, err := get("--user 5:6 -g 7 --env B=2 --cwd /tmp --cap CAP_CHOWN --no-new-privs id ls -l")
	if err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(p)
	want := `{"user":{"uid":5,"gid":6,"additionalGids":[7]},"args":["ls","-l"],"env":["A=1","B=2"],"cwd":"/tmp",` +
		`"capabilities":{"bounding":["CAP_KILL","CAP_CHOWN"],"effective":["CAP_CHOWN"],"permitted":["CAP_CHOWN"]},"noNewPrivileges":true}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if len(own.Env) != 1 || len(own.Capabilities.Bounding) != 1 || len(own.User.AdditionalGids) != 1 {
		t.Error("the container's own process was changed")
	}
	for _, line := range []string{"id", "--user root id ls", "--user 4294967295 id ls", "--cwd tmp id ls", "--process-label a:b id ls"} {
		if p, err := get(line); err == nil {
			t.Errorf("%q: got %+v, want an error", line, p)
		}
	}
}

// TestExecProcessFromFile: what confines the container's own process confines one
// that does not say otherwise, as with runc.
func TestExecProcessFromFile(t *testing.T) {
	score, mask := 100, uint32(0o77)
	own := &specs.Process{Args: []string{"sh"}, Cwd: "/srv", Env: []string{"A=1"}, Terminal: true, NoNewPrivileges: true,
		User:            specs.User{UID: 1, GID: 2, AdditionalGids: []uint32{3}, Umask: &mask},
		Capabilities:    &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}},
		ApparmorProfile: "mine", Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 10, Hard: 20}}, OOMScoreAdj: &score,
		Scheduler:       &specs.Scheduler{Policy: specs.SchedBatch},
		IOPriority:      &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE},
		ExecCPUAffinity: &specs.CPUAffinity{Initial: "0"},
	}
	for name, c := range map[string]struct{ in, want string }{
		"little": {`{"args":["ls"],"cwd":"/"}`, `{"user":{"uid":0,"gid":0,"umask":63},"args":["ls"],"cwd":"/","capabilities":{"bounding":["CAP_KILL"]},` +
			`"rlimits":[{"type":"RLIMIT_NOFILE","hard":20,"soft":10}],"apparmorProfile":"mine","oomScoreAdj":100,` +
			`"scheduler":{"policy":"SCHED_BATCH"},"ioPriority":{"class":"IOPRIO_CLASS_IDLE","priority":0},"execCPUAffinity":{"initial":"0"}}`},
		"all": {`{"user":{"umask":18},"args":["ls"],"cwd":"/","capabilities":{},"rlimits":[{"type":"RLIMIT_CORE","hard":0,"soft":0}],"apparmorProfile":"other","oomScoreAdj":0,` +
			`"scheduler":{"policy":"SCHED_OTHER"},"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":1},"execCPUAffinity":{"final":"1"}}`,
			`{"user":{"uid":0,"gid":0,"umask":18},"args":["ls"],"cwd":"/","capabilities":{},"rlimits":[{"type":"RLIMIT_CORE","hard":0,"soft":0}],` +
				`"apparmorProfile":"other","oomScoreAdj":0,"scheduler":{"policy":"SCHED_OTHER"},"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":1},"execCPUAffinity":{"final":"1"}}`},
	} {
		file := filepath.Join(t.TempDir(), "process.json")
		if err := os.WriteFile(file, []byte(c.in), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := (&command{flags: values{"process": {file}}}).execProcess(own)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, _ := json.Marshal(p); string(got) != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, c.want)
		}
	}
	for _, text := range []string{`{"cwd":"/"}`, `{"args":["ls"]}`} {
		file := filepath.Join(t.TempDir(), "process.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, err := (&command{flags: values{"process": {file}}}).execProcess(own); err == nil {
			t.Errorf("%s: got %+v, want an error", text, p)
		}
	}
}

// TestExecDirectory: a working directory that there is not is named as such, in words
// that engines look for, too.
func TestExecDirectory(t *testing.T) {
	h := newHost(t)
	h.write(nil, "sleep", "1000")
	const id = "lifecycle-exec-directory"
	h.must("run", "--detach", "--bundle", h.bundle, id)
	defer h.must("delete", "--force", id)
	for dir, want := range map[string]string{
		"/none/such":    `working directory "/none/such": no such file or directory`,
		"/bin/busybox":  `working directory "/bin/busybox": not a directory`,
		"/bin/busybox/": `working directory "/bin/busybox/": not a directory`,
		"/bin/sh/x":     `working directory "/bin/sh/x": not a directory`,
	} {
		if code, _, errs := h.call("exec", "--cwd", dir, id, "true"); code != 255 || strings.TrimSpace(errs) != want {
			t.Errorf("%s: exit code %d, %q, want %q", dir, code, errs, want)
		}
	}
}
