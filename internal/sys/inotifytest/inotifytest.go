// Package inotifytest has tests run where no inotify instance is to be had, as when
// others have used up all that a user may have (inotify(7), user_namespaces(7)).
package inotifytest

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// outside has the user namespace that a process of Again was started from.
const outside = "BULKHEAD_TEST_WITHOUT_INOTIFY"

const ownUserNamespace = "/proc/self/ns/user"

// Again runs the tests of this binary that match run once more, in a user namespace
// that may have no inotify instance. want is one of them that must have passed.
func Again(t *testing.T, run, want string) {
	t.Helper()
	ns, err := os.Readlink(ownUserNamespace)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.v", "-test.timeout=2m", "-test.run="+run)
	cmd.Env = append(os.Environ(), outside+"="+ns)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+want) {
		t.Errorf("%v\n%s", err, out)
	}
}

// Forbid reports whether Again has started this process. It then leaves no inotify
// instance to its user namespace, and returns an error if it still gets one.
func Forbid() (bool, error) {
	from := os.Getenv(outside)
	if from == "" {
		return false, nil
	}
	if ns, err := os.Readlink(ownUserNamespace); err != nil || ns == from {
		return true, errors.Join(errors.New("not in a user namespace of its own"), err)
	}
	if err := os.WriteFile("/proc/sys/user/max_inotify_instances", []byte("0"), 0); err != nil {
		return true, err
	}
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC)
	if err == nil {
		syscall.Close(fd)
		return true, errors.New("inotify_init1 succeeds")
	}
	return true, nil
}
