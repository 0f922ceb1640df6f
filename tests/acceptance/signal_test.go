package acceptance

import (
	"bufio"
	"strings"
	"syscall"
	"testing"
)

// TestThirdInterrupt: signals reach the workload, and a person whose program
// does not end by them gets the command line back at the third.
func TestThirdInterrupt(t *testing.T) {
	w := newWorld(t)
	cmd := w.command("run", "--name", "deaf", "box", "sh", "-c", `trap "echo got" INT; echo ready; while :; do sleep 0.05; done`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	want := "ready"
	for range 3 {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("got %q, want %q; %v, %q", lines.Text(), want, cmd.Wait(), stderr.String())
		}
		want = "got"
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
	}
	if code := exitCode(t, cmd.Wait()); code != 130 || !strings.Contains(stderr.String(), "bulkhead stop") {
		t.Errorf("exit code %d, %q; want 130 and how to stop it", code, stderr.String())
	}
	if got := w.inspect("deaf", ".State.Status"); got != "running" {
		t.Errorf("the workload is %s, want running", got)
	}
}
