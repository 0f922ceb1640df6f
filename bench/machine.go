package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/meter"
)

// machine is what the figures hold for.
type machine struct{ lines []string }

func describe(dir string) machine {
	var m machine
	add := func(what, value string) { m.lines = append(m.lines, what+": "+value) }
	add("Date", time.Now().UTC().Format("2006-01-02"))
	add("Bulkhead", output("git", "describe", "--always", "--dirty=+dirty", "--tags"))
	add("Processors", fmt.Sprintf("%d × %s", runtime.NumCPU(), field0("/proc/cpuinfo", "model name")))
	add("Memory", field0("/proc/meminfo", "MemTotal"))
	add("Kernel", output("uname", "-sr"))
	add("Control groups", meter.CgroupLayout())
	add("File system of images and workloads", fileSystem(dir))
	add("Load before", meter.Load())
	return m
}

func output(args ...string) string {
	b, err := exec.Command(args[0], args[1:]...).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// field0 is the value of the first line that begins with the key.
func field0(file, key string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	for _, line := range strings.Split(string(b), "\n") {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
			return strings.Join(strings.Fields(v), " ")
		}
	}
	return "unknown"
}

func fileSystem(dir string) string {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return err.Error()
	}
	names := map[int64]string{0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x01021994: "tmpfs", 0x794c7630: "overlay"}
	if n := names[s.Type]; n != "" {
		return n
	}
	return fmt.Sprintf("type %#x", s.Type)
}
