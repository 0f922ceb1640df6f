package inherit

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestStop(t *testing.T) {
	if os.Getenv("INHERIT") != "" {
		if err := Stop(); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("/bin/sh", "-c", "readlink /proc/self/fd/5; readlink /proc/self/fd/1 >&2; exit 0").CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), "pipe:") || strings.Contains(string(out), "/") {
			t.Fatalf("got %q, %v", out, err)
		}
		return
	}
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestStop$")
	cmd.Env = append(os.Environ(), "INHERIT=1")
	cmd.ExtraFiles = []*os.File{f, f, f}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
