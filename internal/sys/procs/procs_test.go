package procs

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"
)

func TestReadSelf(t *testing.T) {
	p, err := Read(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	boot, err := Boot()
	if err != nil {
		t.Fatal(err)
	}
	if p.IDs[0] != os.Getpid() || p.PPID != os.Getppid() || p.UID != uint32(os.Geteuid()) || p.RSS < 1<<20 || !strings.Contains(p.Command, "procs.test") {
		t.Errorf("got %+v", p)
	}
	if age := time.Since(boot.Add(p.Started)); age < -time.Second || age > time.Hour {
		t.Errorf("started %v ago", age)
	}
	if _, _, err := Traffic(os.Getpid()); err != nil {
		t.Error(err)
	}
}

func TestReadGone(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(cmd.Process.Pid); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestReadManyGroups reads about a process that has as many groups as the kernel
// allows.
func TestReadManyGroups(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, for the groups")
	}
	groups := make([]uint32, 1<<16)
	for i := range groups {
		groups[i] = 1<<32 - 2
	}
	cmd := exec.Command("sleep", "inf")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Groups: groups}, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // whose death the signal would tell
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	if p, err := Read(cmd.Process.Pid); err != nil || p.IDs[0] != cmd.Process.Pid {
		t.Errorf("got %+v, %v", p, err)
	}
}

const stat = "42 (a) b) S 1 42 42 34816 42 4194304 1 2 3 4 150 50 0 0 20 0 1 0 12345 1000 10 18446744073709551615 1 1"

func TestParseStat(t *testing.T) {
	var p Process
	if err := p.parseStat([]byte(stat)); err != nil {
		t.Fatal(err)
	}
	want := Process{PPID: 1, State: "S", Started: 123450 * time.Millisecond, CPU: 2 * time.Second, RSS: 10 * int64(os.Getpagesize()), TTY: "pts/0", Command: "[a) b]"}
	if p.Command != want.Command || p.PPID != want.PPID || p.State != want.State || p.Started != want.Started || p.CPU != want.CPU || p.RSS != want.RSS || p.TTY != want.TTY {
		t.Errorf("got  %+v\nwant %+v", p, want)
	}
}

func TestTerminal(t *testing.T) {
	for dev, want := range map[int64]string{
		0: "", 136 << 8: "pts/0", 136<<8 | 7: "pts/7", 137<<8 | 1: "pts/257", 4<<8 | 1: "tty1", 4<<8 | 64: "ttyS0", 5<<8 | 1: "console", 204<<8 | 64: "204:64",
	} {
		if got := terminal(dev); got != want {
			t.Errorf("%#x: got %q, want %q", dev, got, want)
		}
	}
}

func TestParseDev(t *testing.T) {
	const text = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    1000       0    0    0    0     0          0         0     1000       0    0    0    0     0       0          0
  eth0:     100       1    0    0    0     0          0         0       20       1    0    0    0     0       0          0
  eth1:       1       1    0    0    0     0          0         0        2       1    0    0    0     0       0          0
  bad:        x
`
	if in, out := parseDev([]byte(text)); in != 101 || out != 22 {
		t.Errorf("got %d, %d", in, out)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(stat), []byte("Name:\tx\nUid:\t0\t0\t0\t0\nNSpid:\t42\t1\n"))
	f.Add([]byte("1 (\xff) S"), []byte("Uid:\nNSpid: x"))
	f.Fuzz(func(t *testing.T, stat, status []byte) {
		var p Process
		if p.parseStat(stat) == nil && (!utf8.ValidString(p.Command) || len(p.State) != 1 || p.RSS < 0 || p.CPU < 0) {
			t.Errorf("got %+v", p)
		}
		_ = p.parseStatus(status)
		parseDev(stat)
	})
}

func TestMemory(t *testing.T) {
	total, available, err := Memory()
	if err != nil || total < 16<<20 || available <= 0 || available > total {
		t.Errorf("%d bytes, %d available, %v", total, available, err)
	}
}
