package apparmor

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// The real test runs where the kernel enforces AppArmor: the test binary starts
// itself, asks for the profile, executes itself once more, and reports from
// inside.
const stageEnv = "BULKHEAD_TEST_APPARMOR"

func TestMain(m *testing.M) {
	switch os.Getenv(stageEnv) {
	case "confine":
		fmt.Fprintln(os.Stderr, "confine:", confine())
		os.Exit(1)
	case "inside":
		inside()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func confine() error {
	runtime.LockOSThread() // the request is the thread's
	f, err := os.OpenFile(ExecFile, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(ExecLabel(DefaultName)); err != nil {
		return err
	}
	if err := os.Setenv(stageEnv, "inside"); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", []string{"inside"}, os.Environ())
}

// inside prints what the profile permits, a line each.
func inside() {
	label, err := os.ReadFile("/proc/self/attr/apparmor/current")
	fmt.Printf("label: %s %v\n", strings.TrimSpace(string(label)), err)
	report := func(what string, err error) {
		var errno syscall.Errno
		switch {
		case err == nil:
			fmt.Printf("%s: allowed\n", what)
		case errors.As(err, &errno):
			fmt.Printf("%s: %s\n", what, errnoName(errno))
		default:
			fmt.Printf("%s: %v\n", what, err)
		}
	}
	report("mount", syscall.Mount("tmpfs", "/tmp", "tmpfs", 0, ""))
	report("unmount", syscall.Unmount("/proc", syscall.MNT_DETACH))
	report("write a file of /proc", openToWrite("/proc/sysrq-trigger"))
	report("write below /proc/sys", openToWrite("/proc/sys/kernel/core_pattern"))
	report("write shm limits", openToWrite("/proc/sys/kernel/shmmax"))
	report("write own proc directory", openToWrite("/proc/self/oom_score_adj"))
	report("write below /sys", openToWrite("/sys/module/apparmor/parameters/audit"))
	_, err = os.ReadDir("/sys/kernel/security/apparmor")
	report("read securityfs", err)
	report("write a file of its own", os.WriteFile("/tmp/bulkhead-apparmor-test", []byte("x"), 0o600))
	report("execute", exec.Command("/bin/true").Run())
}

func errnoName(e syscall.Errno) string {
	switch e {
	case syscall.EACCES:
		return "EACCES"
	case syscall.EPERM:
		return "EPERM"
	}
	return fmt.Sprintf("errno %d", int(e))
}

// openToWrite opens a file for writing, and writes nothing.
func openToWrite(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err == nil {
		f.Close()
	}
	return err
}

func TestRealHost(t *testing.T) {
	h := Host{}
	support, err := h.Supported()
	if support != Supported {
		t.Skipf("skipped: AppArmor is %s on this host (error: %v)", support, err)
	}
	if os.Getuid() != 0 {
		t.Skip("skipped: loading a profile needs root")
	}
	if _, err := h.findParser(); err != nil {
		if _, loadErr := h.Loaded(DefaultName); loadErr != nil {
			t.Skipf("skipped: %v", err)
		}
	}
	p, err := h.Resolve(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != DefaultName || !p.Mode.Enforces() {
		t.Errorf("got %+v, want %s in enforce mode", p, DefaultName)
	}
	if err := h.EnsureDefault(t.Context()); err != nil {
		t.Errorf("a second time: %v", err)
	}
	if _, err := h.Resolve(t.Context(), "bulkhead-no-such-profile"); err == nil {
		t.Error("a profile that does not exist was accepted")
	}

	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), stageEnv+"=confine")
	// Should the profile let a mount through, it ends with the process.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("confined process: %v\n%s", err, out)
	}
	t.Cleanup(func() { os.Remove("/tmp/bulkhead-apparmor-test") })
	for _, want := range []string{
		"label: " + DefaultName + " (enforce) <nil>",
		"mount: EACCES",
		"unmount: EACCES",
		"write a file of /proc: EACCES",
		"write below /proc/sys: EACCES",
		"write shm limits: allowed",
		"write own proc directory: allowed",
		"write below /sys: EACCES",
		"read securityfs: EACCES",
		"write a file of its own: allowed",
		"execute: allowed",
	} {
		if !strings.Contains(string(out), want+"\n") {
			t.Errorf("want %q in:\n%s", want, out)
		}
	}
}
