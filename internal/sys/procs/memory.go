package procs

import (
	"bufio"
	"fmt"
	"os"
)

// Memory reads how much memory the kernel has, and how much of it programs could
// still get, in bytes: MemTotal and MemAvailable of proc_meminfo(5).
func Memory() (total, available int64, err error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		var name string
		var kib int64
		if _, err := fmt.Sscanf(s.Text(), "%s %d kB", &name, &kib); err != nil {
			continue
		}
		switch name {
		case "MemTotal:":
			total = kib << 10
		case "MemAvailable:":
			available = kib << 10
		}
	}
	return total, available, s.Err()
}
