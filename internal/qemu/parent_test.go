package qemu

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

func testParentDeath(t *testing.T) {
	config(t, nil) // skips where no machine can be
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestDiesWithItsSupervisor$")
	cmd.Env = append(os.Environ(), "QEMU_PARENT_DIR="+dir, "TMPDIR="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for deadline := time.Now().Add(30 * time.Second); pid == 0; time.Sleep(5 * time.Millisecond) {
		b, _ := os.ReadFile(filepath.Join(dir, "pid"))
		pid, _ = strconv.Atoi(string(b))
		if time.Now().After(deadline) {
			cmd.Process.Kill()
			cmd.Wait()
			t.Fatal("no machine started")
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if syscall.Kill(pid, 0) != nil {
			return
		}
		if b, err := os.ReadFile("/proc/" + itoa(pid) + "/stat"); err == nil && zombie(string(b)) {
			return // dead; whoever adopted it has not looked yet
		}
		if time.Now().After(deadline) {
			syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("QEMU outlived its supervisor")
		}
	}
}

func zombie(stat string) bool {
	i := len(stat) - 1
	for i > 0 && stat[i] != ')' {
		i--
	}
	return i+2 < len(stat) && stat[i+2] == 'Z'
}
