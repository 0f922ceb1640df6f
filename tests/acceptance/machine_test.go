package acceptance

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/vm/vmtest"
)

// withMachines lets a world run virtual machines, with the kernels that tests
// keep.
func (w *world) withMachines() *world {
	w.Helper()
	vmtest.Machine(w) // prepares the kernels, or skips
	cache, err := vmtest.Cache()
	if err != nil {
		w.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(cache, "kernels"), filepath.Join(w.root, "kernels")); err != nil {
		w.Fatal(err)
	}
	// Templates, too: making one takes as long as a boot.
	shared := filepath.Join(cache, "templates")
	if err := errors.Join(os.MkdirAll(shared, 0o700), os.Symlink(shared, filepath.Join(w.root, "templates"))); err != nil {
		w.Fatal(err)
	}
	// What is said once of emulation is no matter here.
	if err := os.WriteFile(filepath.Join(w.root, "told-emulation"), nil, 0o600); err != nil {
		w.Fatal(err)
	}
	return w
}

// inMachine runs a workload in a machine of its own.
func (w *world) inMachine(args ...string) result {
	w.Helper()
	return w.do(append([]string{"run", "--boundary", "vm", "--rm"}, args...)...)
}

// slowly skips a test that boots several machines in the quick tier.
func slowly(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots several machines")
	}
}

// TestMachineRefused: what cannot boot is refused with one sentence and the way
// out, and nothing is left.
func TestMachineRefused(t *testing.T) {
	w := newWorld(t).withMachines()
	file := func(name string, b []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, b, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	arm := make([]byte, 4096)
	copy(arm, "\x7fELF\x02\x01\x01")
	arm[16], arm[18], arm[20] = 2, 183, 1 // ET_EXEC for EM_AARCH64, elf(5)
	garbage := bytes.Repeat([]byte("no kernel "), 1000)
	for _, tt := range []struct {
		flags []string
		word  string
	}{
		{[]string{"--memory", "1m"}, "give at least 6m"},
		{[]string{"--disk", "1m"}, "give 32m to 16t"},
		{[]string{"--kernel", file("garbage", garbage)}, "not a kernel that can be booted"},
		{[]string{"--kernel", file("empty", nil)}, "not a kernel that can be booted"},
		{[]string{"--kernel", file("arm", arm)}, "built for arm64"},
		{[]string{"--kernel", "/nonexistent"}, "no such kernel"},
		{[]string{"--kernel", "/dev/zero"}, "not a plain file"},
		{[]string{"--kernel", "unheard-of"}, "bulkhead kernel ls"},
		{[]string{"--tenant", "nobody"}, "no such tenant"},
		{[]string{"--accel", "hax"}, "give kvm"},
		{[]string{"--network", "host"}, "a kernel of its own"},
	} {
		r := w.inMachine(append(tt.flags, "box", "true")...)
		if r.code != 125 {
			t.Errorf("%v: exit code %d", tt.flags, r.code)
		}
		w.oneSentence(show(tt.flags), r, tt.word)
		w.wantNothing()
	}
}

// TestWithoutQEMU: the way out is named.
func TestWithoutQEMU(t *testing.T) {
	w := newWorld(t).withMachines()
	t.Setenv("PATH", "/nonexistent")
	r := w.inMachine("box", "true")
	if r.code != 125 {
		t.Errorf("exit code %d", r.code)
	}
	w.oneSentence("run", r, "install the package qemu-system-x86")
}

// TestMachineKilled: somebody kills QEMU, and then a supervisor. The command
// says so, the neighbours in another machine and in a container go on.
func TestMachineKilled(t *testing.T) {
	slowly(t)
	w := newWorld(t).withMachines()
	ids := []string{w.start("neighbour", "--boundary", "vm", "box", "sleep", "1000"), w.start("contained", "box", "sleep", "1000")}

	cmd := w.command("run", "--boundary", "vm", "--name", "victim", "box", "sh", "-c", "echo up; exec sleep 1000")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// What is killed sooner was never started, and is removed.
	if _, err := io.ReadFull(out, make([]byte, len("up\n"))); err != nil {
		t.Fatalf("wait for the victim: %v: %s", err, stderr.String())
	}
	w.kill9(w.pid("victim", "Pid"))
	code := exitCode(t, cmd.Wait())
	if code != 125 || !strings.Contains(stderr.String(), "host: QEMU was killed") {
		t.Errorf("QEMU was killed: exit code %d, %q", code, stderr.String())
	}
	if got := w.inspect("victim", ".State.Status"); got != "exited" {
		t.Errorf("the victim is %s", got)
	}
	if r := w.do("logs", "victim"); r.code != 0 {
		t.Errorf("logs: %+v", r)
	}
	// It can be started again, with what it wrote before.
	w.ok("start", "victim")
	if r := w.do("exec", "victim", "echo", "back"); r.out != "back\n" {
		t.Errorf("started again: %+v", r)
	}

	w.kill9(w.pid("victim", "SupervisorPid"))
	w.await("the loss is seen", func() bool {
		return strings.Contains(w.do("ps", "-a", "--format", "{{.Names}} {{.Status}}").out, "victim Exited")
	})
	if got := w.inspect("victim", ".State.Error"); !strings.Contains(got, "supervisor lost") {
		t.Errorf("without a supervisor: %q", got)
	}
	w.ok("rm", "victim")
	for _, name := range []string{"neighbour", "contained"} {
		if r := w.do("exec", name, "echo", "here"); r.out != "here\n" {
			t.Errorf("%s: %+v", name, r)
		}
	}
	w.wantOnly(ids...)
}

// TestMachineOnFullDisk fills the host's disk below a machine that writes: its
// program is told, and another machine on the same disk goes on.
func TestMachineOnFullDisk(t *testing.T) {
	slowly(t)
	w := newSmallWorld(t, 300).withMachines()
	w.start("neighbour", "--boundary", "vm", "--disk", "64m", "-m", "32m", "box", "sleep", "1000")
	w.start("writer", "--boundary", "vm", "--disk", "512m", "box", "sleep", "1000")
	free := w.fill(8 << 20)
	r := w.do("exec", "writer", "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=64 conv=fsync; echo code $?")
	if r.out != "code 1\n" { // an I/O error; or the file system is read-only by then
		t.Errorf("a workload that needs more than there is: %+v", r)
	}
	if r := w.do("exec", "neighbour", "echo", "here"); r.out != "here\n" {
		t.Errorf("the neighbour: %+v", r)
	}
	free()
	w.ok("rm", "-f", "writer")
	if r := w.do("exec", "neighbour", "sh", "-c", "echo text >/file && sync && cat /file"); r.out != "text\n" {
		t.Errorf("the neighbour, with room again: %+v", r)
	}
	w.ok("rm", "-f", "neighbour")
	w.wantNothing()
}

// TestVolumeLinksStayInside: links in a volume that lead out of it lead to the
// guest's own files, also while the guest replaces what lies on the way.
func TestVolumeLinksStayInside(t *testing.T) {
	slowly(t)
	w := newWorld(t).withMachines()
	host := t.TempDir()
	secret := filepath.Join(host, "secret")
	volume := filepath.Join(host, "volume")
	if err := os.MkdirAll(filepath.Join(volume, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{secret: "the host's", filepath.Join(volume, "dir", "secret"): "the volume's"} {
		if err := os.WriteFile(name, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"absolute": secret, "relative": "../secret", "passwd": "/etc/passwd", "up": ".."} {
		if err := os.Symlink(to, filepath.Join(volume, name)); err != nil {
			t.Fatal(err)
		}
	}
	const script = `
for f in /v/absolute /v/relative /v/up/secret; do cat $f 2>/dev/null; done
cmp /v/passwd /etc/passwd && echo own passwd
cd /v; mkdir other
(while test ! -e stop; do mv dir real; ln -s "$1" dir; rm dir; ln -s .. dir; rm dir; mv real dir; done) &
n=0; while test $n -lt 300; do cat dir/secret dir/../secret; echo hacked >>dir/../secret; n=$((n+1)); done 2>/dev/null
touch stop; wait`
	r := w.inMachine("-v", volume+":/v", "box", "sh", "-c", script, "sh", host)
	if r.code != 0 || !strings.HasPrefix(r.out, "own passwd\n") || strings.Contains(r.out, "the host's") {
		t.Errorf("%d, %q, %q", r.code, r.out[:min(len(r.out), 500)], r.err)
	}
	if !strings.Contains(r.out, "the volume's") {
		t.Errorf("the racer never read the volume's own: %q", r.out[:min(len(r.out), 500)])
	}
	if b, err := os.ReadFile(secret); err != nil || string(b) != "the host's\n" {
		t.Errorf("the host's file: %q, %v", b, err)
	}
	if entries, err := os.ReadDir(host); err != nil || len(entries) != 2 {
		t.Errorf("beside the volume: %v, %v", entries, err)
	}
}

// TestMachineInterrupted: an interrupted start ends at once and leaves nothing.
func TestMachineInterrupted(t *testing.T) {
	slowly(t)
	w := newWorld(t).withMachines()
	for _, after := range []time.Duration{200 * time.Millisecond, 700 * time.Millisecond, 2 * time.Second} {
		cmd := w.command("run", "--boundary", "vm", "--rm", "box", "sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after)
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if code := exitCode(t, cmd.Wait()); code != 130 {
			t.Errorf("interrupted after %v: exit code %d", after, code)
		}
		w.wantNothing()
	}
}
