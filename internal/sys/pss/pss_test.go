package pss

import (
	"os"
	"os/exec"
	"slices"
	"testing"
)

func TestSnapshot(t *testing.T) {
	before, err := Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	const id = "pss-test-of-owned"
	cmd := exec.Command("sh", "-c", "cat; true", id)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); _ = cmd.Wait() }()
	// Once cat has answered it is there, as the shell's child.
	if _, err := in.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	now, err := Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	self := now[os.Getpid()]
	if self.PSS < 1<<20 || self.Parent != os.Getppid() || !before.Has(self) {
		t.Errorf("this process is %+v, and was there: %v", self, before.Has(self))
	}
	owned := now.Owned(id)
	var names []string
	for _, p := range owned {
		if p.PSS <= 0 || before.Has(p) {
			t.Errorf("%+v, and was there: %v", p, before.Has(p))
		}
		names = append(names, p.Name)
	}
	if len(owned) != 2 || owned[0].PID != cmd.Process.Pid || !slices.Contains(names, "cat") {
		t.Errorf("owned are %q, want the shell and its child", names)
	}
	if other := now.Owned("", "nobody has this name"); len(other) != 0 {
		t.Errorf("%+v belong to nobody", other)
	}
	reused := now[cmd.Process.Pid]
	reused.Start += "0"
	if now.Has(reused) {
		t.Error("another process with the same ID is taken for the old one")
	}
}
