package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/pss"
)

// endLeftovers kills processes that a contender left behind: those that name
// the working directory, which nobody else knows, in their command line, and
// their children. It reports them, as they ought not to be there.
func endLeftovers(dir string) error {
	var left []string
	for range 20 {
		all, err := pss.Snapshot()
		if err != nil {
			return err
		}
		found := false
		for _, p := range all {
			parent := all[p.Parent]
			if !strings.Contains(p.Command, dir) && !strings.Contains(parent.Command, dir) || p.PID == os.Getpid() {
				continue
			}
			found = true
			left = append(left, p.Name)
			if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
		if !found {
			break
		}
		time.Sleep(100 * time.Millisecond) // children may be on their way out
	}
	if len(left) > 0 {
		return fmt.Errorf("ended processes that were left: %s", strings.Join(left, ", "))
	}
	return nil
}

// unmountBelow detaches every mount below a directory, newest first.
func unmountBelow(dir string) error {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	lines := strings.Split(string(text), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		f := strings.Fields(lines[i])
		if len(f) < 2 || !strings.HasPrefix(f[1], dir+"/") {
			continue
		}
		if err := syscall.Unmount(f[1], syscall.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", f[1], err)
		}
	}
	return nil
}
