package container

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const blockedEnv = "BULKHEAD_TEST_BLOCKED"

// TestSignalsStartFresh: a caller that blocks or ignores signals, real-time ones
// too, does not hand that on: a container that cannot be ended by SIGTERM would
// be its doing.
func TestSignalsStartFresh(t *testing.T) {
	if os.Getenv(blockedEnv) == "" {
		busybox(t) // skips
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var set, old unix.Sigset_t
		set.Val[0] = 1<<(unix.SIGTERM-1) | 1<<(40-1)
		if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, &old); err != nil {
			t.Fatal(err)
		}
		defer unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
		// A child inherits the mask of the thread that makes it; the shell ignores
		// a real-time signal for it.
		cmd := exec.Command("/bin/sh", "-c", `trap '' 41; exec "$@"`, "sh", os.Args[0], "-test.run=^TestSignalsStartFresh$", "-test.v")
		cmd.Env = append(os.Environ(), blockedEnv+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	out, _ := run(t, nil, "grep", "-E", "Sig(Blk|Ign)", "/proc/self/status")
	for line := range strings.Lines(out) {
		if _, mask, _ := strings.Cut(line, ":"); strings.Trim(mask, "\t\n 0") != "" {
			t.Errorf("in the container: %s", line)
		}
	}
	if n := strings.Count(out, "Sig"); n != 2 {
		t.Errorf("got %q", out)
	}
}
