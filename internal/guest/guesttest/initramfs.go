package guesttest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// archive writes a cpio archive in the "newc" format
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type archive struct {
	bytes.Buffer
	inode int
}

func (a *archive) add(name string, mode uint32, content []byte) {
	a.inode++
	fmt.Fprintf(a, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
	a.WriteString(name + "\x00")
	a.pad()
	a.Write(content)
	a.pad()
}

func (a *archive) pad() {
	for a.Len()%4 != 0 {
		a.WriteByte(0)
	}
}

const (
	directory = 0o040755
	program   = 0o100755
)

// initramfs writes an initramfs with init as /init and files, by path without
// the leading slash, whose directories are those that are made here.
func initramfs(t testing.TB, k kernel, init string, files map[string][]byte) string {
	t.Helper()
	read := func(name string) []byte {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	a := &archive{}
	a.add("bin", directory, nil)
	a.add("modules", directory, nil)
	a.add("init", program, read(init))
	var order bytes.Buffer
	for _, m := range k.modules {
		a.add("modules/"+filepath.Base(m), program, read(m))
		fmt.Fprintln(&order, "/modules/"+filepath.Base(m))
	}
	a.add("modules/order", program, order.Bytes())
	for name, content := range files {
		a.add(name, program, content)
	}
	a.add("TRAILER!!!", 0, nil)
	name := filepath.Join(t.TempDir(), "initramfs")
	if err := os.WriteFile(name, a.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
