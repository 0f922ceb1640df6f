package cgroup

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/inotifytest"
)

// root is where these tests make cgroups, and nowhere else.
var root string

const helperEnv = "BULKHEAD_CGROUP_TEST_HELPER"

// TestMain runs a helper when it is told to, else the tests; a cgroup that
// they leave behind fails them.
func TestMain(m *testing.M) {
	if name := os.Getenv(helperEnv); name != "" {
		runHelper(name)
		return
	}
	if _, err := inotifytest.Forbid(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	var b [6]byte
	rand.Read(b[:])
	root = "/bulkhead-test-" + hex.EncodeToString(b[:])
	lay, err := Detect()
	if err != nil {
		fmt.Println("detect:", err)
		os.Exit(1)
	}
	fmt.Printf("cgroup mode %s, v2 controllers %v, user %d\n", lay.Mode, lay.V2Controllers, os.Geteuid())
	code := m.Run()
	if left := leftovers(lay); len(left) > 0 {
		fmt.Println("cgroups left behind:", left)
		code = 1
	}
	os.Exit(code)
}

func leftovers(lay *Layout) []string {
	var left []string
	for _, mount := range append(mounts(lay), lay.V2) {
		if mount != "" && exists(mount+root, ".") {
			left = append(left, mount+root)
			_ = removeTree(mount + root)
		}
	}
	return left
}

func mounts(lay *Layout) []string {
	var list []string
	for _, h := range lay.V1 {
		list = append(list, h.Mount)
	}
	return list
}

func ptr[T any](v T) *T { return &v }

// native returns this machine's layout, and skips where cgroups cannot be made.
func native(t *testing.T) *Layout {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make cgroups")
	}
	lay, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if lay.Mode == ModeNone {
		t.Skip("no cgroup file system is mounted")
	}
	return lay
}

// eachLayout runs a test with the machine's layout and, where that is hybrid,
// also as if there were no v2 hierarchy.
func eachLayout(t *testing.T, f func(t *testing.T, lay *Layout)) {
	lay := native(t)
	t.Run(string(lay.Mode), func(t *testing.T) { f(t, lay) })
	if lay.Mode == ModeHybrid {
		v1 := &Layout{Mode: ModeV1, V1: lay.V1}
		t.Run(string(ModeV1), func(t *testing.T) { f(t, v1) })
	}
}

// needs skips a test of a controller that the layout does not have.
func needs(t *testing.T, lay *Layout, v1, v2 string) {
	t.Helper()
	if _, ok := lay.onV1(v1); !ok && !lay.onV2(v2) {
		t.Skipf("this machine has no %s controller", v1)
	}
}

// make makes a cgroup for the time of a test.
func create(t *testing.T, lay *Layout, name string, r *specs.LinuxResources) *Manager {
	t.Helper()
	m, err := New(root+"/"+name, r, Options{Layout: lay})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	if err := m.Create(); err != nil {
		t.Fatalf("Create: %v", err)
	}
	t.Cleanup(func() { cleanUp(t, m) })
	return m
}

func cleanUp(t *testing.T, m *Manager) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := m.Kill(ctx); err != nil {
		t.Errorf("Kill: %v", err)
	}
	if err := m.Destroy(ctx); err != nil {
		t.Errorf("Destroy: %v", err)
	}
	m.RemoveEmptyParents(root)
}

// helper is this test binary, run inside a cgroup.
type helper struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
	pipe io.Closer
}

// start runs a helper inside m. It waits for a line on its standard input
// before it does anything when its name begins with "wait-".
func start(t *testing.T, m *Manager, name string, args ...string) *helper {
	t.Helper()
	h := &helper{cmd: exec.Command("/proc/self/exe", args...)}
	h.cmd.Env = []string{helperEnv + "=" + name, "GOMAXPROCS=2", "GOGC=off"}
	h.cmd.Stderr = os.Stderr
	in, err := h.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.in, h.out, h.pipe = in, bufio.NewScanner(out), out
	err = m.Inside(func(fd int) error {
		h.cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: fd >= 0, CgroupFD: fd}
		return h.cmd.Start()
	})
	if err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(func() {
		_ = h.cmd.Process.Kill()
		_ = h.cmd.Wait()
	})
	return h
}

// line returns the helper's next line of output.
func (h *helper) line(t *testing.T) string {
	t.Helper()
	if !h.out.Scan() {
		t.Fatalf("the helper said nothing more: %v, %v", h.out.Err(), h.cmd.Wait())
	}
	return h.out.Text()
}

// startAs runs a helper outside of any cgroup of ours, as another user.
func startAs(t *testing.T, uid uint32, name string, args ...string) *helper {
	t.Helper()
	h := &helper{cmd: exec.Command("/proc/self/exe", args...)}
	h.cmd.Env = []string{helperEnv + "=" + name}
	h.cmd.Dir = "/"
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.out, h.pipe = bufio.NewScanner(out), out
	if err := h.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(func() {
		_ = h.cmd.Process.Kill()
		_ = h.cmd.Wait()
	})
	return h
}

func (h *helper) wait(t *testing.T) syscall.WaitStatus {
	t.Helper()
	err := h.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return h.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

// runHelper is what happens inside the cgroup.
func runHelper(name string) {
	switch name {
	case "sleep":
		fmt.Println("ready")
		sleepForever()
	case "wait":
		fmt.Println("ready")
		bufio.NewReader(os.Stdin).ReadString('\n')
	case "spin":
		fmt.Println("ready")
		go spin()
		spin()
	case "eat":
		eat(256 << 20)
	case "forks":
		fmt.Println(forkUntilRefused(1000))
	case "bomb":
		fmt.Println("ready")
		forkBomb()
	case "devices":
		for _, a := range os.Args[1:] {
			fmt.Println(a, tryDevice(a))
		}
	case "status":
		text, _ := os.ReadFile("/proc/self/status")
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, os.Args[1]+":") {
				fmt.Println(strings.TrimSpace(strings.TrimPrefix(line, os.Args[1]+":")))
			}
		}
	case "read":
		fmt.Println(readDirect(os.Args[1]))
	case "write":
		if err := os.WriteFile(os.Args[1], make([]byte, 4<<20), 0o600); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("written")
	case "unprivileged":
		lay, err := Detect()
		if err != nil {
			fmt.Println(err)
			return
		}
		m, err := New(os.Args[1], nil, Options{Layout: lay})
		if err == nil {
			err = m.Create()
		}
		fmt.Println(errors.Is(err, ErrNoAccess), err)
	}
}

// sink keeps spin's work from being left out.
var sink int

func spin() {
	for n := 0; ; n++ {
		sink = n
	}
}

// eat touches n bytes of memory.
func eat(n int) {
	b, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		fmt.Println(err)
		return
	}
	for i := 0; i < n; i += os.Getpagesize() {
		b[i] = 1
	}
	fmt.Println("ate it all")
}

// forkUntilRefused makes processes that only sleep, and returns how many it
// made before the kernel said EAGAIN.
func forkUntilRefused(most int) string {
	for n := range most {
		pid, errno := rawFork()
		if errno != 0 {
			return fmt.Sprintf("%d %s", n, errnoName(errno))
		}
		if pid == 0 {
			sleepForever()
		}
	}
	return fmt.Sprintf("%d never", most)
}

// forkBomb forks in parent and child alike.
func forkBomb() {
	for {
		_, _, _ = syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	}
}

func rawFork() (uintptr, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	return pid, errno
}

func sleepForever() {
	for {
		_, _, _ = syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}

func errnoName(e error) string {
	for name, errno := range map[string]syscall.Errno{
		"EAGAIN": syscall.EAGAIN, "EPERM": syscall.EPERM, "EACCES": syscall.EACCES, "ENXIO": syscall.ENXIO,
	} {
		if errors.Is(e, errno) {
			return name
		}
	}
	if e == nil {
		return "ok"
	}
	return e.Error()
}

// tryDevice opens or makes a node: "r:1:5" opens the character device 1:5
// through a node that the test made.
func tryDevice(what string) string {
	mode, path, _ := strings.Cut(what, ":")
	if mode == "m" {
		var major, minor int
		fmt.Sscanf(filepath.Base(path), "%d-%d", &major, &minor)
		err := syscall.Mknod(path+".new", syscall.S_IFCHR|0o600, major<<8|minor)
		os.Remove(path + ".new")
		return errnoName(err)
	}
	flags := map[string]int{"r": syscall.O_RDONLY, "w": syscall.O_WRONLY, "rw": syscall.O_RDWR}[mode]
	fd, err := syscall.Open(path, flags|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err == nil {
		syscall.Close(fd)
	}
	return errnoName(err)
}

func readDirect(path string) string {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_DIRECT|syscall.O_CLOEXEC, 0)
	if err != nil {
		return errnoName(err)
	}
	buf, err := syscall.Mmap(-1, 0, 1<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return errnoName(err)
	}
	n, err := syscall.Read(fd, buf)
	if err != nil {
		return errnoName(err)
	}
	return fmt.Sprint(n)
}

// eventually looks again and again until cond holds. The deadline only keeps
// a broken test from hanging.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("%s did not happen", what)
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func sortedKeys(m map[string]string) []string {
	var list []string
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}
