// Package leakcheck fails a test that leaves something behind: a descriptor, a
// mount, a cgroup, a namespace, a process or a file. It compares what exists
// when the test begins with what exists when it ends, so it finds leaks that no
// assertion of the test asks for.
package leakcheck

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Options narrow the guard to what belongs to the test, because other programs
// share the machine.
type Options struct {
	// Paths are directories of the test. Mounts on or from below them,
	// processes that name them in their command line, and with Files set the
	// files in them, are watched.
	Paths []string
	// Files also watches the names of all files below Paths.
	Files bool
	// Cgroups are cgroup paths such as "/bulkhead-test"; the cgroups below them
	// are watched in every hierarchy.
	Cgroups []string
	// Wait is how long things may take to disappear; 0 stands for 2 seconds.
	Wait time.Duration
}

// Check takes a snapshot now and compares when the test and its other cleanups,
// registered later, are over. Tests that use it must not run in parallel with
// others of their package: descriptors and children belong to the process.
func Check(t testing.TB, o Options) {
	t.Helper()
	subreap()
	before, err := Take(o)
	if err != nil {
		t.Fatalf("leak guard: %v", err)
	}
	t.Cleanup(func() {
		if leaks := before.Wait(o); len(leaks) > 0 {
			t.Errorf("left behind:\n\t%s", strings.Join(leaks, "\n\t"))
		}
	})
}

// Snapshot is what existed at one time, by kind and name.
type Snapshot map[string]bool

// Wait compares s with now until nothing is left behind or o.Wait has passed,
// and returns what is.
func (s Snapshot) Wait(o Options) []string {
	if o.Wait == 0 {
		o.Wait = 2 * time.Second
	}
	for deadline := time.Now().Add(o.Wait); ; time.Sleep(20 * time.Millisecond) {
		after, err := Take(o)
		if err != nil {
			return []string{"leak guard: " + err.Error()}
		}
		var leaks []string
		for k := range after {
			if !s[k] {
				leaks = append(leaks, k)
			}
		}
		if len(leaks) == 0 || time.Now().After(deadline) {
			slices.Sort(leaks)
			return leaks
		}
	}
}

// Take returns what exists now.
func Take(o Options) (Snapshot, error) {
	s := Snapshot{}
	for _, f := range []func(Options) error{s.descriptors, s.mounts, s.cgroups, s.processes, s.files} {
		if err := f(o); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// descriptors records this process's own, by what they refer to and how many
// there are, as numbers are reused. Those of the Go runtime's poller are left
// out: they appear at first use and stay. A namespace is kept by a descriptor, a
// mount or a process, so it is found by one of the three.
func (s Snapshot) descriptors(Options) error {
	reaping.Lock()
	defer reaping.Unlock()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	counts := map[string]int{}
	for _, e := range d {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasPrefix(to, "anon_inode:[event") || strings.HasSuffix(to, "/fd") {
			continue
		}
		// Sockets and pipes are named by a fresh inode number.
		counts[to]++
		s[fmt.Sprintf("descriptor of %s (%d)", to, counts[to])] = true
	}
	return nil
}

func (s Snapshot) mounts(o Options) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		for _, p := range o.Paths {
			if strings.Contains(line, p) {
				s["mount "+strings.TrimSpace(line)] = true
			}
		}
	}
	return nil
}

func (s Snapshot) cgroups(o Options) error {
	roots, err := filepath.Glob("/sys/fs/cgroup/*")
	if err != nil {
		return err
	}
	for _, root := range append(roots, "/sys/fs/cgroup") {
		for _, c := range o.Cgroups {
			top := filepath.Join(root, c)
			filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() && path != top {
					s["cgroup "+path] = true
				}
				return nil // a cgroup may vanish while we look
			})
		}
	}
	return nil
}

// processes records the descendants of this process, which as a subreaper it
// keeps when those in between have died, and any process that names one of
// o.Paths or sits in one of o.Cgroups. Zombies without a parent of their own are reaped.
func (s Snapshot) processes(o Options) error {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	parent, label := map[int]int{}, map[int]string{}
	self := os.Getpid()
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		ppid, comm, state, ok := stat(pid)
		if !ok {
			continue
		}
		if state == "Z" {
			if ppid == self {
				syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
			}
			continue
		}
		parent[pid] = ppid
		label[pid] = fmt.Sprintf("process %d %s", pid, comm)
		if pid != self && belongs(pid, o) {
			s[label[pid]] = true
		}
	}
	for pid := range parent {
		for p := parent[pid]; p != 0; p = parent[p] {
			if p == self {
				s[label[pid]] = true
				break
			}
		}
	}
	return nil
}

func belongs(pid int, o Options) bool {
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	for _, p := range o.Paths {
		if bytes.Contains(cmdline, []byte(p)) {
			return true
		}
	}
	cgroups, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	for _, c := range o.Cgroups {
		if bytes.Contains(cgroups, []byte(":"+c+"/")) {
			return true
		}
	}
	return false
}

// stat reads the fields of /proc/pid/stat; the command may hold blanks and
// parentheses, see proc_pid_stat(5).
func stat(pid int) (ppid int, comm, state string, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, "", "", false
	}
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return 0, "", "", false
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 2 {
		return 0, "", "", false
	}
	ppid, err = strconv.Atoi(f[1])
	return ppid, string(b[open+1 : end]), f[0], err == nil
}

func (s Snapshot) files(o Options) error {
	if !o.Files {
		return nil
	}
	for _, p := range o.Paths {
		filepath.WalkDir(p, func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				s["file "+path] = true
			}
			return nil
		})
	}
	return nil
}

// subreap makes orphaned descendants children of this process, so that the
// guard sees daemons too; see PR_SET_CHILD_SUBREAPER in prctl(2). Then it is also
// on us to reap them: the first process of a pid namespace cannot end while
// one that entered its namespace is a zombie. Our own children are left to whoever
// started them: an orphan is in another session, as its daemon was, and is
// still a zombie when some time has passed.
var subreap = sync.OnceFunc(func() {
	const prSetChildSubreaper = 36
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0)
	go func() {
		since := map[int]time.Time{}
		for ; ; time.Sleep(50 * time.Millisecond) {
			since = reap(since)
		}
	}()
})

// reaping is held while reap has descriptors, which are no leak.
var reaping sync.Mutex

// reap waits for orphans that have been zombies since some time ago, and returns
// since when which are.
func reap(since map[int]time.Time) map[int]time.Time {
	reaping.Lock()
	defer reaping.Unlock()
	found := map[int]time.Time{}
	for _, pid := range zombies() {
		if sameSession(pid) {
			continue
		}
		first, ok := since[pid]
		if !ok {
			first = time.Now()
		}
		if found[pid] = first; time.Since(first) > 300*time.Millisecond {
			syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		}
	}
	return found
}

// zombies returns the children that have ended and were not waited for: all of
// them, as those of one test can be many, or the first one where the kernel does not
// list children (CONFIG_PROC_CHILDREN).
func zombies() (all []int) {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	if len(lists) == 0 {
		if pid := zombie(); pid != 0 {
			all = append(all, pid)
		}
		return all
	}
	for _, list := range lists {
		b, _ := os.ReadFile(list) // the thread has ended: its children are another's
		for word := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(word); err == nil {
				if _, _, state, ok := stat(pid); ok && state == "Z" {
					all = append(all, pid)
				}
			}
		}
	}
	return all
}

func sameSession(pid int) bool {
	own, err1 := session(os.Getpid())
	other, err2 := session(pid)
	return err1 != nil || err2 != nil || own == other
}

// session returns the session of a process, which may be a zombie.
func session(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 4 {
		return "", fmt.Errorf("short stat of process %d", pid)
	}
	return f[3], nil
}
