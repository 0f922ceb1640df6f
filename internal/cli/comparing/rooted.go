package comparing

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/pidfd"
)

// killTime is how long processes may take to die.
const killTime = 10 * time.Second

// endRooted kills the processes whose root directory is dir, but for those to keep,
// and returns when there is none. A program without a boundary may leave what it
// likes; what it starts has its root directory, and a control group or a process
// namespace of its own would change what is measured.
func endRooted(ctx context.Context, dir string, keep func(pid int) bool) error {
	root, err := os.Lstat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, killTime)
	defer cancel()
	for {
		left := 0
		entries, err := os.ReadDir("/proc")
		if err != nil {
			return err
		}
		for _, e := range entries {
			pid, err := strconv.Atoi(e.Name())
			if err != nil || pid == os.Getpid() || keep != nil && keep(pid) || !rooted(pid, root) {
				continue
			}
			left++
			if err := kill(ctx, pid, root); err != nil {
				return fmt.Errorf("kill process %d: %w", pid, err)
			}
		}
		if left == 0 {
			return nil
		}
	}
}

// rooted reports whether a process has this root directory, as far as it can be seen.
func rooted(pid int, root os.FileInfo) bool {
	// Of a process's root in another mount namespace only the inode can be compared.
	info, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid), "root"))
	return err == nil && os.SameFile(info, root)
}

// kill kills a process and waits for its end. Its number may be another's by now:
// so it is looked at again once it is held.
func kill(ctx context.Context, pid int, root os.FileInfo) error {
	f, err := pidfd.Open(pid)
	if pidfd.IsGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if !rooted(pid, root) {
		return f.Close()
	}
	if err := pidfd.Kill(f); err != nil {
		f.Close()
		return err
	}
	return pidfd.Wait(ctx, f)
}
