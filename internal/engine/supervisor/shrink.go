package supervisor

import (
	"bufio"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// settled is how long nothing must have happened before a supervisor gives up
// memory: a workload that ends sooner shall not pay for it.
const settled = time.Second

// shrink gives memory back that only starting needed. From then on a
// supervisor mostly waits.
func shrink() {
	debug.FreeOSMemory()
	forget()
}

// forget drops this process's view of its own program file, the larger part of
// what a small Go program occupies. Pages that are needed again come back from
// the page cache at their next use. Only read-only mappings of the file are
// dropped, which can hold nothing of ours: the program is static and not relocated.
func forget() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		// 00400000-00600000 r-xp 00000000 08:01 1234   /path, see proc_pid_maps(5)
		fields := strings.Fields(s.Text())
		if len(fields) < 6 || strings.Contains(fields[1], "w") || !strings.HasSuffix(s.Text(), " "+exe) {
			continue
		}
		lo, hi, _ := strings.Cut(fields[0], "-")
		from, err1 := strconv.ParseUint(lo, 16, 64)
		to, err2 := strconv.ParseUint(hi, 16, 64)
		if err1 != nil || err2 != nil || from >= to {
			continue
		}
		// It is advice: a kernel that does not take it costs memory only.
		syscall.RawSyscall(syscall.SYS_MADVISE, uintptr(from), uintptr(to-from), syscall.MADV_DONTNEED)
	}
}
