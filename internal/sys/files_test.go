package sys

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestInUse(t *testing.T) {
	name := t.TempDir() + "/file"
	if err := os.WriteFile(name, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	open := func() *os.File {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	one, two := open(), open()
	defer one.Close()
	used := func(want bool) {
		t.Helper()
		if got, err := InUse(one); err != nil || got != want {
			t.Errorf("in use: %v, %v; want %v", got, err, want)
		}
	}
	used(false)
	if err := MarkUsed(two); err != nil {
		t.Fatal(err)
	}
	used(true)
	// Somebody who was given the descriptor uses it, too.
	conn, err := two.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var given *os.File
	if err := conn.Control(func(fd uintptr) {
		dup, err := unix.Dup(int(fd))
		if err != nil {
			t.Error(err)
			return
		}
		given = os.NewFile(uintptr(dup), "given")
	}); err != nil {
		t.Fatal(err)
	}
	two.Close()
	used(true)
	given.Close()
	used(false)
}

func TestNextData(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/sparse")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 8<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(32 << 20); err != nil {
		t.Fatal(err)
	}
	if at, more, err := NextData(f, 0); err != nil || !more || at == 0 || at > 8<<20 {
		t.Errorf("the first data are at %d, %v, %v", at, more, err)
	}
	if at, more, err := NextData(f, 16<<20); err != nil || more {
		t.Errorf("after all data: %d, %v, %v", at, more, err)
	}
}
