package tty

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"unsafe"
)

// pair opens a new terminal and returns both sides.
func pair(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	var zero, n uint32
	for _, c := range []struct {
		req uintptr
		arg *uint32
	}{{syscall.TIOCSPTLCK, &zero}, {syscall.TIOCGPTN, &n}} {
		_, _, e := syscall.Syscall(syscall.SYS_IOCTL, master.Fd(), c.req, uintptr(unsafe.Pointer(c.arg)))
		if e != 0 {
			t.Fatal(e)
		}
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func TestSizeCrossesOver(t *testing.T) {
	master, slave := pair(t)
	want := Size{Rows: 33, Cols: 99}
	if err := SetSize(master, want); err != nil {
		t.Fatal(err)
	}
	if got, err := GetSize(slave); err != nil || got != want {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

func TestRawPassesBytesAndRestores(t *testing.T) {
	master, slave := pair(t)
	restore, err := MakeRaw(slave)
	if err != nil {
		t.Fatal(err)
	}
	echo := func(what, want string) {
		t.Helper()
		if _, err := slave.WriteString(what); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 16)
		n, err := master.Read(b)
		if err != nil || string(b[:n]) != want {
			t.Errorf("wrote %q, read %q, %v; want %q", what, b[:n], err, want)
		}
	}
	echo("a\n", "a\n")
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	echo("a\n", "a\r\n")
	if err := KeepNewlines(slave); err != nil {
		t.Fatal(err)
	}
	echo("a\n", "a\n")
}

func TestIs(t *testing.T) {
	_, slave := pair(t)
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if !Is(slave) || Is(null) {
		t.Errorf("slave: %v, /dev/null: %v; want true, false", Is(slave), Is(null))
	}
}
