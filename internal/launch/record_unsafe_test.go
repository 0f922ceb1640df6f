package launch

import (
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestRecord makes calls of which one fails; later ones are made all the same.
func TestRecord(t *testing.T) {
	r, err := Record(0, []Trial{{Call: unix.SYS_GETPID}, {Call: unix.SYS_CLOSE, Args: [6]uintptr{1 << 20}}, {Call: unix.SYS_GETPPID}})
	if err != nil {
		t.Fatal(err)
	}
	pid := r.pid
	got, ws, err := r.Wait()
	if err != nil || !ws.Exited() || ws.ExitStatus() != 0 {
		t.Fatalf("status %v, %v", ws, err)
	}
	want := []Result{{true, uintptr(pid), 0}, {true, 0, syscall.EBADF}, {true, uintptr(unix.Getpid()), 0}}
	for n := range want {
		if got[n] != want[n] {
			t.Errorf("call %d: got %+v, want %+v", n, got[n], want[n])
		}
	}
}

// TestRecordMust: after a call that had to end otherwise, none is made.
func TestRecordMust(t *testing.T) {
	bad := [6]uintptr{1 << 20}
	r, err := Record(0, []Trial{
		{Call: unix.SYS_CLOSE, Args: bad, Must: true, Errno: syscall.EBADF},
		{Call: unix.SYS_GETPPID, Must: true},
		{Call: unix.SYS_CLOSE, Args: bad, Must: true, Errno: syscall.EPERM},
		{Call: unix.SYS_GETPPID},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, ws, err := r.Wait()
	if err != nil || !ws.Exited() || !got[1].Ended || !got[2].Ended || got[3].Ended {
		t.Errorf("got %+v, status %v, %v", got, ws, err)
	}
}

// TestRecordDeath: what came before the child's death is known, and nothing after.
func TestRecordDeath(t *testing.T) {
	pr, pw := pipe(t)
	defer unix.Close(pr)
	defer unix.Close(pw)
	pipe := [2]uintptr{uintptr(pr), uintptr(pw)}
	letter := uintptr(unsafe.Pointer(unsafe.StringData("x")))
	r, err := Record(0, []Trial{
		{Call: unix.SYS_WRITE, Args: [6]uintptr{pipe[1], letter, 1}},
		{Call: unix.SYS_PPOLL}, // without end
		{Call: unix.SYS_GETPPID},
	})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Read(int(pipe[0]), make([]byte, 1)); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	for !r.Result(0).Ended { // it has written, and says so in a moment
		runtime.Gosched()
	}
	if err := r.Kill(); err != nil {
		t.Fatal(err)
	}
	got, ws, err := r.Wait()
	if err != nil || !ws.Signaled() || ws.Signal() != unix.SIGKILL {
		t.Fatalf("status %v, %v", ws, err)
	}
	if got[0] != (Result{true, 1, 0}) || got[1].Ended || got[2].Ended {
		t.Errorf("got %+v", got)
	}
}

// TestRecordShared uses a descriptor that the child made.
func TestRecordShared(t *testing.T) {
	r, err := Record(unix.CLONE_FILES, []Trial{{Call: unix.SYS_EVENTFD2, Args: [6]uintptr{7, unix.EFD_CLOEXEC}}})
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := r.Wait()
	if err != nil || got[0].Errno != 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	defer unix.Close(int(got[0].Value))
	b := make([]byte, 8)
	if n, err := unix.Read(int(got[0].Value), b); err != nil || n != 8 || b[0] != 7 {
		t.Errorf("read %d bytes %v, %v", n, b, err)
	}
}

func TestRecordI386(t *testing.T) {
	if !HasI386 {
		t.Skip("needs an amd64 machine")
	}
	r, err := Record(0, []Trial{
		{Call: 20, I386: true},                           // getpid of i386
		{Call: 6, Args: [6]uintptr{1 << 20}, I386: true}, // close of i386
		{Call: unix.SYS_GETPID},
	})
	if err != nil {
		t.Fatal(err)
	}
	pid := uintptr(r.pid)
	got, ws, err := r.Wait()
	if err == nil && ws.Signaled() && ws.Signal() == unix.SIGSEGV {
		t.Skip("needs a machine that takes the system calls of i386")
	}
	if err != nil || got[0] != (Result{true, pid, 0}) || got[1] != (Result{true, 0, syscall.EBADF}) || got[2] != (Result{true, pid, 0}) {
		t.Errorf("got %+v, status %v, %v", got, ws, err)
	}
}
