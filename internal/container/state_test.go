package container

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// A process ID that is free again may become a thread's, which no pidfd is made of.
func TestOpenOfReusedID(t *testing.T) {
	ids, quit := make(chan int), make(chan struct{})
	defer close(quit)
	thread := os.Getpid()
	for thread == os.Getpid() { // that one is the process's first
		go func() {
			runtime.LockOSThread()
			ids <- unix.Gettid()
			<-quit
		}()
		thread = <-ids
	}
	for what, pid := range map[string]int{"a thread": thread, "another process": os.Getpid()} {
		dir := t.TempDir()
		if err := (&State{ID: "c", Pid: pid, PidStart: 1}).save(dir); err != nil {
			t.Fatal(err)
		}
		c, err := Open(dir)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if st := c.Status(); st != workload.Exited {
			t.Errorf("%s: %v, want that the container has ended", what, st)
		}
		c.Close()
	}
}
