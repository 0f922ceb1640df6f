package cgroup

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// withoutInotifyEnv has the user namespace that this process was started from.
const withoutInotifyEnv = "BULKHEAD_CGROUP_TEST_WITHOUT_INOTIFY"

const ownUserNamespace = "/proc/self/ns/user"

// forbidInotify leaves no inotify instance to the user namespace that this process
// is in, unless that is the one outside.
func forbidInotify(outside string) error {
	if ns, err := os.Readlink(ownUserNamespace); err != nil || ns == outside {
		return errors.Join(errors.New("not in a user namespace of its own"), err)
	}
	if err := os.WriteFile("/proc/sys/user/max_inotify_instances", []byte("0"), 0); err != nil {
		return err
	}
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC)
	if err == nil {
		syscall.Close(fd)
		return errors.New("inotify_init1 succeeds")
	}
	return nil
}

// TestWithoutInotify has tests of what waits for reports of the kernel run once
// more, where others have used up all inotify instances.
func TestWithoutInotify(t *testing.T) {
	native(t)
	outside, err := os.Readlink(ownUserNamespace)
	if err != nil {
		t.Fatal(err)
	}
	root := []syscall.SysProcIDMap{{Size: 1}}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.v", "-test.timeout=2m",
		"-test.run=^(TestWaitEmpty|TestKillForkBomb|TestFreeze|TestDestroyNested|TestWaitEndsWithTheCgroup)$")
	cmd.Env = append(os.Environ(), withoutInotifyEnv+"="+outside)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: root, GidMappings: root, Pdeathsig: syscall.SIGKILL,
	}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestKillForkBomb") {
		t.Errorf("%v\n%s", err, out)
	}
}
