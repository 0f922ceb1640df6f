package template

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys"
)

// User is a VMM that has a template's memory mapped.
type User struct {
	PID int
	// Own is the memory that no other process has, in bytes, Shared the rest: the
	// template's pages, and the VMM's program and libraries.
	Own, Shared int64
}

// Users lists the VMMs of a template's clones.
func (s *Store) Users(key string) ([]User, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	fi, err := os.Lstat(s.path(key, memoryFile))
	if isMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fmt.Errorf("stat %s: no inode", fi.Name())
	}
	// As proc_pid_maps(5) writes them.
	major, minor := sys.Device(st.Dev)
	device, inode := fmt.Sprintf("%02x:%02x", major, minor), strconv.FormatUint(st.Ino, 10)
	found, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var users []User
	for _, dir := range found {
		if !maps(dir, device, inode) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if u, ok := usage(dir); ok { // else it has ended
			u.PID = pid
			users = append(users, u)
		}
	}
	return users, nil
}

// maps tells whether a process has a file mapped. What follows the inode is a name,
// which anybody may have chosen.
func maps(dir, device, inode string) bool {
	f, err := os.Open(dir + "/maps")
	if err != nil {
		return false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// 7f0000000000-7f0000001000 r--p 00000000 08:01 1234   /name
		if f := strings.Fields(lines.Text()); len(f) >= 5 && f[3] == device && f[4] == inode {
			return true
		}
	}
	return false
}

// usage adds up /proc/PID/smaps_rollup.
func usage(dir string) (u User, ok bool) {
	b, err := os.ReadFile(dir + "/smaps_rollup")
	if err != nil {
		return u, false
	}
	for line := range strings.Lines(string(b)) {
		var name string
		var kib int64
		if _, err := fmt.Sscanf(line, "%s %d kB", &name, &kib); err != nil {
			continue
		}
		switch {
		case strings.HasPrefix(name, "Private_"):
			u.Own += kib << 10
		case strings.HasPrefix(name, "Shared_"):
			u.Shared += kib << 10
		}
	}
	return u, true
}
