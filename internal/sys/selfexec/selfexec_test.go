package selfexec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain turns the test program into the one that seals itself.
func TestMain(m *testing.M) {
	switch os.Getenv("SELFEXEC") {
	case "seal":
		os.Exit(sealMyself())
	case "loop":
		os.Exit(sealFails())
	}
	os.Exit(m.Run())
}

// sealMyself tells what it is before and after Seal.
func sealMyself() int {
	before, err := Sealed()
	if err != nil {
		fmt.Println("before:", err)
		return 1
	}
	fmt.Fprintln(os.Stderr, "sealed:", before)
	if err := Seal(); err != nil {
		fmt.Println("seal:", err)
		return 1
	}
	Name()
	wd, _ := os.Getwd()
	preserved, _ := io.ReadAll(os.NewFile(3, "preserved"))
	in, _ := io.ReadAll(os.Stdin)
	comm, _ := os.ReadFile("/proc/self/comm")
	fmt.Printf("args=%q env=%q cwd=%q fd3=%q stdin=%q comm=%q\n", os.Args, os.Getenv("KEPT"), wd, preserved, in, comm)
	// The path is the only handle left. It must not change the mount.
	fd, err := unix.Open("/proc/self/exe", unix.O_PATH, 0)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY})
	fmt.Printf("mount_setattr: %v\n", err)
	err = unix.Mount("", fmt.Sprintf("/proc/self/fd/%d", fd), "", unix.MS_REMOUNT|unix.MS_BIND, "")
	fmt.Printf("remount: %v\n", err)
	_, err = unix.OpenTree(fd, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE)
	fmt.Printf("clone: %v\n", err)
	var open []string
	for n := 3; n < 1024; n++ {
		if to, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", n)); err == nil && n != fd && (to == "/" || strings.HasSuffix(to, ".test")) {
			open = append(open, to)
		}
	}
	fmt.Printf("files open: %q\n", open)
	return 0
}

func needRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
}

func TestSeal(t *testing.T) {
	needRoot(t)
	if ok, err := Sealed(); err != nil || ok {
		t.Fatalf("the test itself: sealed %v, %v", ok, err)
	}
	dir := t.TempDir()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(w, "three")
	w.Close()
	// A copy, which nobody but the child runs from.
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(t.TempDir(), "copy.test")
	if err := os.WriteFile(exe, b, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "one", "two words")
	cmd.Args[0] = "a-long-name-for-a-program"
	cmd.Dir, cmd.Env = dir, []string{"SELFEXEC=seal", "KEPT=kept"}
	cmd.ExtraFiles = []*os.File{r}
	var out bytes.Buffer
	cmd.Stdout = &out
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// It runs twice, the second time sealed: not once, and not for ever.
	said := make([]byte, len("sealed: false\nsealed: true\n"))
	if _, err := io.ReadFull(errs, said); err != nil || string(said) != "sealed: false\nsealed: true\n" {
		t.Errorf("got %q, %v", said, err)
	}
	// While it runs every write is ETXTBSY, so the attack holds the file until
	// the process has ended.
	held, err := unix.Open(fmt.Sprintf("/proc/%d/exe", cmd.Process.Pid), unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(held)
	fmt.Fprint(in, "zero")
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, &out)
	}
	if _, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", held), os.O_WRONLY, 0); !errors.Is(err, syscall.EROFS) {
		t.Errorf("writing the program after its end: got %v, want EROFS", err)
	}
	want := fmt.Sprintf(`args=["a-long-name-for-a-program" "one" "two words"] env="kept" cwd=%q fd3="three" stdin="zero" comm="a-long-name-for\n"
mount_setattr: invalid argument
remount: invalid argument
clone: invalid argument
files open: []
`, dir)
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
}

// TestOpenHandle is why the descriptor must be gone before a workload runs:
// whoever has it can undo the seal.
func TestOpenHandle(t *testing.T) {
	needRoot(t)
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := os.OpenFile(Path(f), os.O_WRONLY, 0); !errors.Is(err, syscall.EROFS) {
		t.Errorf("got %v, want EROFS", err)
	}
	if err := unix.MountSetattr(int(f.Fd()), "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}); err != nil {
		t.Errorf("mount_setattr through the open handle: %v; if the kernel refuses it now, the package comment is out of date", err)
	}
	if ok, err := sealed(int(f.Fd()), "", unix.AT_EMPTY_PATH); err != nil || ok {
		t.Errorf("sealed %v, %v after the mount became writable", ok, err)
	}
}

func sealFails() int {
	if err := Seal(); err != nil {
		fmt.Println(err)
		return 3
	}
	return 0
}

// TestSealRefused: without the privilege the program says so, and does not
// execute itself again and again.
func TestSealRefused(t *testing.T) {
	needRoot(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"SELFEXEC=loop"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(string(out), "operation not permitted") {
		t.Errorf("got %v, %q", err, out)
	}
}

// BenchmarkOpen is the cost of sealing a program that is started anyway.
func BenchmarkOpen(b *testing.B) {
	for b.Loop() {
		f, err := Open("/proc/self/exe")
		if err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}
