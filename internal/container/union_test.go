package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAccountsAreNoDevices: the account files of a hostile image are looked at
// before they are opened. The device has no driver, so opening it is ENXIO.
func TestAccountsAreNoDevices(t *testing.T) {
	root := busybox(t)
	file := filepath.Join(root, "etc", "passwd")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(file, unix.S_IFCHR|0o600, int(unix.Mkdev(4095, 77))); err != nil {
		t.Skip("cannot make device nodes here: ", err)
	}
	_, _, err := tryRun(t, func(c *Config) {
		c.User, c.Layers = "user", layersOf(t, root, testBase)
	}, "id")
	if err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("got %v, want: not a regular file", err)
	}
}
