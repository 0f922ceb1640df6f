package hook

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func state() specs.State {
	return specs.State{Version: "1.3.0", ID: "one", Status: specs.StateCreated, Pid: 7, Bundle: "/b"}
}

// sh is a hook that runs a shell script.
func sh(script string, env ...string) specs.Hook {
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: env}
}

func TestStateArrivesOnStdin(t *testing.T) {
	out := filepath.Join(t.TempDir(), "state")
	if err := Run(context.Background(), CreateRuntime, []specs.Hook{sh("cat >" + out)}, state); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"ociVersion":"1.3.0","id":"one","status":"created","pid":7,"bundle":"/b"}`
	if string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestArgumentsAndEnvironmentAreExact(t *testing.T) {
	t.Setenv("SECRET", "of the caller")
	out := filepath.Join(t.TempDir(), "env")
	h := specs.Hook{Path: "/bin/sh", Args: []string{"name", "-c", `echo "$0,$1,$A,$SECRET" >` + out, "zero", "one"}, Env: []string{"A=b"}}
	if err := Run(context.Background(), Prestart, []specs.Hook{h}, state); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(out)
	if want := "zero,one,b,\n"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFirstFailureStopsTheRest(t *testing.T) {
	out := filepath.Join(t.TempDir(), "ran")
	err := Run(context.Background(), CreateRuntime, []specs.Hook{
		sh("true"), sh("echo why >&2; exit 3"), sh("touch " + out),
	}, state)
	if err == nil || err.Error() != "error running createRuntime hook #1: /bin/sh: exit status 3: why" {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("a hook ran after one that failed")
	}
}

func TestRunAllRunsEveryHook(t *testing.T) {
	out := filepath.Join(t.TempDir(), "ran")
	err := RunAll(context.Background(), Poststop, []specs.Hook{sh("exit 1"), sh("touch " + out)}, state)
	if err == nil || !strings.Contains(err.Error(), "poststop hook #0") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(out); err != nil {
		t.Error("the hook after the failed one did not run")
	}
}

func TestMissingProgram(t *testing.T) {
	err := Run(context.Background(), Prestart, []specs.Hook{{Path: "/no/such/hook"}}, state)
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want an error for the missing file", err)
	}
}

func TestTimeoutEndsHookAndItsChildren(t *testing.T) {
	one := 1
	h := sh("sleep 60 & wait")
	h.Timeout = &one
	begin := time.Now()
	err := Run(context.Background(), Prestart, []specs.Hook{h}, state)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a timeout", err)
	}
	if time.Since(begin) > 30*time.Second {
		t.Error("the hook's child was waited for")
	}
}

func TestChildThatKeepsTheOutputOpen(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	if err := Run(context.Background(), Prestart, []specs.Hook{sh("sleep 60 & echo $! >" + pidFile)}, state); err != nil {
		t.Errorf("got %v, want success", err)
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("end the hook's child: %v", err)
	}
}

func TestUnreadStateIsNoError(t *testing.T) {
	if err := Run(context.Background(), Prestart, []specs.Hook{{Path: "/bin/true"}}, state); err != nil {
		t.Errorf("got %v, want success", err)
	}
}

func TestOutputIsBoundedAndHarmless(t *testing.T) {
	err := Run(context.Background(), Prestart, []specs.Hook{
		sh(`head -c 1000000 /dev/zero | tr '\0' x >&2; printf '\033[31mend\nof it\n' >&2; exit 1`),
	}, state)
	if err == nil {
		t.Fatal("no error")
	}
	msg := err.Error()
	if len(msg) > 2*maxOutput || !strings.Contains(msg, "…") {
		t.Errorf("%d bytes of error, want at most %d and a mark that it was cut", len(msg), 2*maxOutput)
	}
	if strings.ContainsAny(msg, "\033\n") || !strings.HasSuffix(msg, "[31mend of it") {
		t.Errorf("end of the message: %q", msg[len(msg)-40:])
	}
}

// TestLongTimeout: more seconds than a duration has are no reason to end a hook at once.
func TestLongTimeout(t *testing.T) {
	h := sh("true")
	h.Timeout = new(int)
	for _, *h.Timeout = range []int{1 << 34, 1<<63 - 1} {
		if err := Run(context.Background(), Poststart, []specs.Hook{h}, state); err != nil {
			t.Errorf("%d seconds: %v", *h.Timeout, err)
		}
	}
}
