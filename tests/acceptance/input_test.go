package acceptance

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestBadInput makes mistakes: each is one sentence and an exit code, and leaves
// nothing.
func TestBadInput(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("hi\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.ok("create", "--name", "taken", "box", "true")
	long := strings.Repeat("a", 120_000)
	tests := []struct {
		code int
		word string
		args []string
	}{
		{127, "not found", []string{"box", "nothing"}},
		{127, "not found", []string{"box", "/bin/nothing"}},
		{126, "permission denied", []string{"box", "/etc/passwd"}},
		{126, "is a directory", []string{"box", "/etc"}},
		{125, "empty string", []string{"box", ""}},
		{125, "names no program", []string{"box"}},
		{125, `no such user`, []string{"-u", "nobody-here", "box", "true"}},
		{125, "outside the ID range", []string{"-u", "70000", "box", "true"}},
		{125, "out of range", []string{"-u", "-1", "box", "true"}},
		{125, "name is in use", []string{"--name", "taken", "box", "true"}},
		{125, "does not exist", []string{"--mount", "type=bind,src=/nothing/here,dst=/x", "box", "true"}},
		{125, "is a directory", []string{"-v", file + ":/etc", "box", "true"}},
		{125, "no directory", []string{"-v", "/srv:/etc/passwd", "box", "true"}},
		{125, "over /proc", []string{"-v", "/srv:/proc/x", "box", "true"}},
		{125, "root directory", []string{"-v", "/srv:/", "box", "true"}},
		{125, "no such image", []string{"--pull", "never", "nothing", "true"}},
		{125, "not a directory", []string{"-w", "/etc/passwd", "box", "true"}},
		{125, "not a host name", []string{"--hostname", strings.Repeat("a", 65), "box", "true"}},
		{125, "unknown signal", []string{"--stop-signal", "99", "box", "true"}},
		{125, "name is missing", []string{"-e", "=x", "box", "true"}},
		{125, "not UTF-8", []string{"box", "echo", "\xff"}},
		{125, "not UTF-8", []string{"-e", "A=\xff", "box", "true"}},
		{125, "longer than", []string{"--env-file", "/dev/zero", "box", "true"}},
		{125, "not a device", []string{"--device", "/etc/passwd", "box", "true"}},
		{126, "longer than the kernel takes", []string{"--ulimit", "stack=65536", "box", "echo", long, long}},
	}
	for _, tt := range tests {
		what := show(tt.args)
		r := w.do(append([]string{"run", "--rm"}, tt.args...)...)
		if r.code != tt.code {
			t.Errorf("%s: exit code %d, want %d: %+v", what, r.code, tt.code, r)
		}
		w.oneSentence(what, r, tt.word)
	}
	w.ok("rm", "taken")
	w.wantNothing()
}

// TestMissingVolumeIsMade: -v makes a missing directory, as with Docker.
func TestMissingVolumeIsMade(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "new", "er")
	w.ok("run", "--rm", "-v", dir+":/data", "box", "sh", "-c", "echo hi >/data/x")
	if b, err := os.ReadFile(filepath.Join(dir, "x")); err != nil || string(b) != "hi\n" {
		t.Errorf("got %q, %v", b, err)
	}
}

// TestMuchInput passes much, long and strange words.
func TestMuchInput(t *testing.T) {
	w := newWorld(t)
	args := []string{"run", "--rm"}
	for n := range 10_000 {
		args = append(args, "-e", fmt.Sprintf("V%d=%d", n, n))
	}
	if got := w.ok(append(args, "box", "sh", "-c", "env | grep -c '^V[0-9]*='")...); got != "10000" {
		t.Errorf("variables: %s", got)
	}
	long := strings.Repeat("é", 60_000)
	if got := w.ok("run", "--rm", "box", "echo", long); got != long {
		t.Errorf("a long argument: got %d bytes", len(got))
	}
	for _, strange := range []string{"a\nb", "", "\x01\x7f", "--rm", "$HOME", "a\tb  c", "'\"`\\"} {
		if got := w.ok("run", "--rm", "-e", "X="+strange, "box", "sh", "-c", `printf %s/%s "$1" "$X"`, "sh", strange); got != strange+"/"+strange {
			t.Errorf("%q: got %q", strange, got)
		}
	}
}

// TestStreams looks at standard streams that are missing, full or closed.
func TestStreams(t *testing.T) {
	w := newWorld(t)
	shell := func(script string) (string, int) {
		cmd := exec.Command("/bin/bash", "-c", script)
		cmd.Env = append(os.Environ(), "BULKHEAD_ROOT="+w.root, "PATH="+bin+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		return string(out), exitCode(t, err)
	}
	for _, tt := range []struct {
		script, out string
		code        int
	}{
		{"bulkhead run --rm box cat <&-", "", 0},
		{"bulkhead run --rm -i box cat <&-", "", 0},
		{"bulkhead run --rm -i box cat </dev/null", "", 0},
		{"bulkhead run --rm box echo hi >&-", "", 0},
		{"bulkhead run --rm box echo hi >&- 2>&- <&-", "", 0},
		{"bulkhead run --rm box sh -c 'echo out; echo err >&2' >/dev/null", "err\n", 0},
		{"bulkhead run --rm box sh -c 'echo out; echo err >&2' 2>/dev/null", "out\n", 0},
		{"echo in | bulkhead run --rm -i -u app box sh -c 'cat </dev/stdin; echo out >/dev/stdout'", "in\nout\n", 0},
		{"bulkhead run --rm -u app box sh -c 'echo err >/dev/stderr'", "err\n", 0},
		{"echo words | bulkhead run --rm box cat", "", 0}, // not without -i
		{"bulkhead run --rm box sh -c 'kill -9 $$; sleep 1; exit 4'", "", 4},
		// The command ends by SIGPIPE; the workload of it ends by itself.
		{"bulkhead run --rm box sh -c 'for i in 1 2 3 4 5 6 7 8 9; do echo $i; sleep 0.05; done' | head -n 1; echo ${PIPESTATUS[0]}", "1\n141\n", 0},
	} {
		if out, code := shell(tt.script); out != tt.out || code != tt.code {
			t.Errorf("%s: exit code %d, output %q", tt.script, code, out)
		}
	}
	out, code := shell("bulkhead run --rm box echo hi >/dev/full")
	if code != 125 || !strings.Contains(out, "no space left") || strings.Contains(out, "state directory") {
		t.Errorf("full output: exit code %d, %q", code, out)
	}
	w.wantNothing()
}

// TestBytes sends bytes through a workload and back.
func TestBytes(t *testing.T) {
	w := newWorld(t)
	size := int64(50 << 20)
	if testing.Short() {
		size = 5 << 20
	}
	cmd := w.command("run", "--rm", "-i", "box", "sh", "-c", "cat; echo done >&2")
	seed := [32]byte{1}
	sent, got := sha256.New(), sha256.New()
	cmd.Stdin = io.TeeReader(io.LimitReader(rand.NewChaCha8(seed), size), sent)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = got, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Error("other bytes came back")
	}
	if stderr.String() != "done\n" {
		t.Errorf("standard error: %q", stderr.String())
	}
}

// TestExitCodes tries exit codes and signals, through run, exec and wait.
func TestExitCodes(t *testing.T) {
	w := newWorld(t)
	w.start("host", "box", "sleep", "1000")
	step := 1
	if testing.Short() {
		step = 51
	}
	for n := 0; n < 256; n += step {
		script := fmt.Sprintf("exit %d", n)
		if r := w.do("run", "--rm", "box", "sh", "-c", script); r.code != n || r.out+r.err != "" {
			t.Errorf("run, exit %d: %+v", n, r)
		}
		if r := w.do("exec", "host", "sh", "-c", script); r.code != n || r.out+r.err != "" {
			t.Errorf("exec, exit %d: %+v", n, r)
		}
	}
	for _, sig := range []syscall.Signal{1, 2, 6, 9, 11, 13, 14, 15} {
		// A signal of one's own does nothing to the first process of a namespace
		// that does not handle it (pid_namespaces(7)): --init makes it the second.
		script := fmt.Sprintf("kill -%d $$; sleep 9", sig)
		want := 128 + int(sig)
		if r := w.do("run", "--rm", "--init", "box", "sh", "-c", script); r.code != want {
			t.Errorf("run, signal %d: %+v", sig, r)
		}
		if r := w.do("exec", "host", "sh", "-c", script); r.code != want {
			t.Errorf("exec, signal %d: %+v", sig, r)
		}
	}
}

// TestBadImages imports what is no image, or one whose config makes no sense.
func TestBadImages(t *testing.T) {
	w := newWorld(t)
	before := w.files()
	dir := t.TempDir()
	whole, err := os.ReadFile(imageTar)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"empty":     nil,
		"text":      []byte("this is no archive\n"),
		"truncated": whole[:len(whole)/2],
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"import", path, "bad"}, {"load", "-i", path}} {
			r := w.do(args...)
			if r.code != 1 {
				t.Errorf("%s of %s: %+v", args[0], name, r)
				continue
			}
			w.oneSentence(args[0]+" of "+name, r, "")
		}
	}
	for _, change := range []string{"NOTHING x", "USER", "CMD [", "WORKDIR", "ENV"} {
		r := w.do("import", "--change", change, imageTar, "bad")
		if r.code != 1 {
			t.Errorf("--change %q: %+v", change, r)
			continue
		}
		w.oneSentence(change, r, "")
	}
	for f := range w.files() {
		if !before[f] && !strings.HasSuffix(f, "/lock") {
			t.Errorf("left behind: %s", f)
		}
	}
	for change, want := range map[string]int{
		"USER nobody-here": 125, "WORKDIR /etc/passwd": 125, `ENTRYPOINT ["/nothing"]`: 127, `ENTRYPOINT ["/etc/passwd"]`: 126,
	} {
		w.ok("import", "--change", change, imageTar, "odd")
		if r := w.do("run", "--rm", "odd", "true"); r.code != want {
			t.Errorf("%s: %+v", change, r)
		}
	}
}
