package pid1_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/guesttest"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/pid1"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// guest is a booted testguest that takes commands.
type guest struct {
	*testing.T
	machine *guesttest.Machine
	conn    net.Conn
	lines   *bufio.Reader
}

const answerLimit = time.Minute

// device is the MAC address of the guest's network device.
const device = "02:00:00:00:00:01"

// filler is in the initramfs to be freed.
const filler = 24 << 20

func boot(t *testing.T, machine string, disks map[string]string) *guest {
	m := guesttest.Start(t, guesttest.Config{
		Type: machine, Init: guesttest.Build(t, "internal/guest/pid1/testguest"), Disks: disks, NICs: []string{device},
		Files: map[string][]byte{"filler": []byte(strings.Repeat("x", filler)), "bin/bulkhead-init": []byte("program")},
	})
	g := &guest{T: t, machine: m}
	g.connect(1)
	return g
}

// connect begins the guest's nth session.
func (g *guest) connect(n int) {
	g.Helper()
	g.conn = g.machine.Dial()
	g.Cleanup(func() { g.conn.Close() })
	g.lines = bufio.NewReader(g.conn)
	line, err := g.lines.ReadString('\n')
	if err != nil || line != fmt.Sprintf("hello %d\n", n) {
		g.Fatalf("got %q, %v, want hello %d", line, err, n)
	}
}

// try sends a command and returns the answer.
func (g *guest) try(command string) (string, error) {
	g.Helper()
	g.conn.SetDeadline(time.Now().Add(answerLimit))
	if _, err := fmt.Fprintln(g.conn, command); err != nil {
		g.Fatalf("%s: %v", command, err)
	}
	line, err := g.lines.ReadString('\n')
	if err != nil {
		g.Fatalf("%s: %v", command, err)
	}
	kind, quoted, _ := strings.Cut(strings.TrimSpace(line), " ")
	text, err := strconv.Unquote(quoted)
	if err != nil {
		g.Fatalf("%s: got %q", command, line)
	}
	if kind != "ok" {
		return "", fmt.Errorf("%s: %s", command, text)
	}
	return text, nil
}

func (g *guest) do(format string, args ...any) string {
	g.Helper()
	text, err := g.try(fmt.Sprintf(format, args...))
	if err != nil {
		g.Fatal(err)
	}
	return text
}

// fails sends a command that must fail with text in its error.
func (g *guest) fails(command, text string) {
	g.Helper()
	if got, err := g.try(command); err == nil || !strings.Contains(err.Error(), text) {
		g.Errorf("%s: got %q, %v, want an error with %q", command, got, err, text)
	}
}

// TestGuest boots both machine types and looks at what PID 1 made.
func TestGuest(t *testing.T) {
	for _, machine := range []string{"q35", "microvm"} {
		t.Run(machine, func(t *testing.T) {
			tree := t.TempDir()
			if err := os.WriteFile(filepath.Join(tree, "file"), []byte("content"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(tree, os.ModeSticky|0o755); err != nil {
				t.Fatal(err)
			}
			disk := guesttest.Ext4(t, 64)
			g := boot(t, machine, map[string]string{"image0": guesttest.Erofs(t, tree), "data": disk})
			g.mounts()
			g.root()
			g.reaping()
			g.image()
			g.nics()
			kept := g.data()
			g.clock()
			g.reconnect()
			g.do("poweroff")
			g.machine.AwaitEnd()
			if strings.Contains(g.machine.Console(), "bulkhead-agent:") {
				t.Errorf("complaints on the console:\n%s", g.machine.Console())
			}
			unmountedClean(t, disk)
			g.again(machine, disk, kept)
		})
	}
}

// mounts looks for what every workload expects.
func (g *guest) mounts() {
	table := g.do("read /proc/self/mountinfo")
	expected := []string{" /proc ", " /sys ", " /dev ", " /dev/pts ", " /dev/shm ", " /run ", " /tmp ", " - cgroup2 "}
	if strings.Contains(g.do("read /proc/filesystems"), "securityfs") { // where the kernel has a security module
		expected = append(expected, " - securityfs ")
	}
	for _, want := range expected {
		if !strings.Contains(table, want) {
			g.Errorf("mount table has no %q:\n%s", want, table)
		}
	}
	enabled := strings.Fields(g.do("read /sys/fs/cgroup/bulkhead/cgroup.subtree_control"))
	for _, c := range []string{"cpu", "cpuset", "io", "memory", "pids"} {
		if !slices.Contains(enabled, c) {
			g.Errorf("controller %s is not enabled for workloads, only %v", c, enabled)
		}
	}
	if flags := strings.TrimSpace(g.do("read /sys/class/net/lo/flags")); flags != "0x9" { // IFF_UP|IFF_LOOPBACK
		g.Errorf("loopback's flags are %s, want 0x9", flags)
	}
	for name, want := range map[string]string{
		"/proc/sys/fs/protected_symlinks": "1",
		// What one workload could use up for all.
		"/proc/sys/kernel/threads-max":     "4194304",
		"/proc/sys/kernel/pid_max":         "4194304",
		"/sys/fs/cgroup/bulkhead/pids.max": "4128768",
		"/proc/sys/fs/file-max":            "9223372036854775807",
		"/proc/sys/vm/max_map_count":       "1048576",
		"/proc/sys/fs/nr_open":             "1048576",
	} {
		if got := strings.TrimSpace(g.do("read %s", name)); got != want {
			g.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if got := g.do("read /proc/self/oom_score_adj"); got != "-1000\n" {
		g.Errorf("the agent's OOM score is %q", got)
	}
	if limits := g.do("read /proc/self/limits"); !strings.Contains(limits, "Max open files            1048576              1048576") {
		g.Errorf("limit on open files: %s", limits)
	}
}

// root checks that the initramfs was left and freed.
func (g *guest) root() {
	if got := g.do("run pivot"); got != "names in the new root: 0" {
		g.Errorf("pivot_root: got %q", got)
	}
	if got := g.do("list /*"); got != "/bin /dev /proc /run /sys /tmp" {
		g.Errorf("the root holds %s", got)
	}
	if got := g.do("read %s", pid1.InitProgram); got != "program" {
		g.Errorf("%s holds %q", pid1.InitProgram, got)
	}
	// The initramfs is a tmpfs or a ramfs, whose pages count as one of these.
	var kept int
	for line := range strings.Lines(g.do("read /proc/meminfo")) {
		var kib int
		var name string
		fmt.Sscan(line, &name, &kib)
		if name == "Shmem:" || name == "Unevictable:" {
			kept = max(kept, kib<<10)
		}
	}
	if kept == 0 || kept > filler/2 {
		g.Errorf("%d bytes in memory file systems: the initramfs was not freed", kept)
	}
}

func (g *guest) reaping() {
	g.do("reap 40")
	// An orphan may end a moment after its parent.
	var left string
	for range 50 {
		if left = g.do("zombies"); left == "" {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	g.Errorf("zombies:\n%s", left)
}

func (g *guest) image() {
	dir := g.do("image image0")
	if again := g.do("image image0"); again != dir {
		g.Errorf("the same image at %s and %s", dir, again)
	}
	if got := g.do("read %s/file", dir); got != "content" {
		g.Errorf("the image's file holds %q", got)
	}
	g.fails("write "+dir+"/file x", "read-only file system")
	g.do("release image0")
	g.do("read %s/file", dir) // one use is left
	g.do("release image0")
	g.fails("read "+dir+"/file", "no such file")
	g.do("image image0")
	g.do("release image0")
	g.fails("image image7", `no disk with serial number "image7"`)
	g.fails("image ../../etc", "want letters and digits")
	g.fails("image data", "EROFS")
}

// nics gives the network device to a workload, which hides it, and takes it back.
func (g *guest) nics() {
	before := g.do("links")
	if !strings.Contains(before, device+" "+device+" 1500 false") {
		g.Errorf("network devices: %s", before)
	}
	for range 2 {
		g.do("give %s eth7", device)
		if got := g.do("links"); strings.Contains(got, device) {
			g.Errorf("given away and here: %s", got)
		}
		g.do("hide eth7 eth8")
		if got := g.do("links hidden"); !strings.Contains(got, "eth8 "+device+" 02:42:ac:11:00:09 1300") {
			g.Errorf("hidden: %s", got)
		}
		g.do("back %s", device)
		if got := g.do("links"); got != before {
			g.Errorf("taken back: %s, want %s", got, before)
		}
		if got := g.do("links hidden"); strings.Contains(got, device) {
			g.Errorf("the workload has it still: %s", got)
		}
	}
}

// data makes the writable directories of a workload, and returns its ID.
func (g *guest) data() workload.ID {
	id := workload.NewID()
	root := g.do("image image0")
	defer g.do("release image0")
	upper, work, _ := strings.Cut(g.do("data %s %s 100000", id, root), " ")
	if got := g.do("stat %s", upper); got != "41755 100000 100000" {
		g.Errorf("upper: %s", got)
	}
	if got := g.do("stat %s", work); got != "40700 100000 100000" {
		g.Errorf("work: %s", got)
	}
	g.do("write %s/kept text", upper)
	if got := g.do("data %s %s 100000", id, root); got != upper+" "+work {
		g.Errorf("the second time: %s", got)
	}
	g.fails(fmt.Sprintf("data %s %s 200000", id, root), "belongs to user 100000")
	g.fails("data ../x "+root+" 100000", "workload ID")
	other := workload.NewID()
	g.do("data %s %s 100000", other, root)
	g.do("remove %s", other)
	g.do("remove %s", other)
	if got := g.do("list /run/bulkhead/data/workloads/*"); got != "/run/bulkhead/data/workloads/"+string(id) {
		g.Errorf("after a removal: %s", got)
	}
	return id
}

func (g *guest) clock() {
	want := time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)
	g.do("clock %d", want.UnixNano())
	n, _ := strconv.ParseInt(g.do("now"), 10, 64)
	if off := time.Unix(0, n).Sub(want); off < 0 || off > time.Minute {
		g.Errorf("the clock is off by %v", off)
	}
	g.do("clock %d", time.Unix(0, n).Add(20*time.Millisecond).UnixNano()) // slewed, or set
	// As much forth as back, at once; what is slewed meanwhile is little.
	for _, by := range []time.Duration{time.Hour + time.Second/4, -(time.Hour + time.Second/4), 20 * time.Millisecond} {
		before, _ := strconv.ParseInt(g.do("now"), 10, 64)
		g.do("shift %d", by)
		after, _ := strconv.ParseInt(g.do("now"), 10, 64)
		if off := time.Duration(after-before) - by; by.Abs() > time.Second && (off < -time.Second || off > time.Minute) {
			g.Errorf("the clock moved by %v, want %v", time.Duration(after-before), by)
		}
	}
	g.do("reseed %s", strings.Repeat("s", 64))
	g.fails("reseed short", "seed of 5 bytes")
}

// reconnect leaves the guest alone, comes back, and looks whether it was busy
// meanwhile.
func (g *guest) reconnect() {
	pid := g.do("pid")
	before := g.ticks(pid)
	g.conn.Close()
	time.Sleep(time.Second)
	g.connect(2)
	if used := g.ticks(pid) - before; used > 50 { // of 100 in a second
		g.Errorf("the agent used %d ticks of processor time while no host was there", used)
	}
}

// ticks is the processor time of a process in the guest, in 1/100 s.
func (g *guest) ticks(pid string) int {
	_, after, _ := strings.Cut(g.do("read /proc/%s/stat", pid), ") ")
	f := strings.Fields(after)
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return user + system
}

// unmountedClean checks that nothing was left in the data disk's journal.
func unmountedClean(t *testing.T, disk string) {
	t.Helper()
	out, err := exec.Command("dumpe2fs", "-h", disk).CombinedOutput()
	if err != nil {
		t.Fatalf("dumpe2fs: %v\n%s", err, out)
	}
	if strings.Contains(string(out), "needs_recovery") {
		t.Error("the data disk was not unmounted")
	}
}

// again boots another guest with the data of the first and no image.
func (g *guest) again(machine, disk string, id workload.ID) {
	g = boot(g.T, machine, map[string]string{"data": disk})
	upper, _, _ := strings.Cut(g.do("data %s / 100000", id), " ")
	if got := g.do("read %s/kept", upper); got != "text" {
		g.Errorf("after a restart the file holds %q", got)
	}
	g.do("kill 1 2") // as Ctrl-Alt-Del
	g.machine.AwaitEnd()
	unmountedClean(g.T, disk)
}

// TestNoDataDisk: there is no other place for what a workload writes.
func TestNoDataDisk(t *testing.T) {
	g := boot(t, "q35", nil)
	g.fails(fmt.Sprintf("data %s / 100000", workload.NewID()), `no disk with serial number "data"`)
	g.do("poweroff")
	g.machine.AwaitEnd()
}

// TestAgentDies: whatever ends the agent ends the machine with a word on the
// console, and never with a panic of the kernel.
func TestAgentDies(t *testing.T) {
	for command, words := range map[string][]string{
		"panic":   {"panic: asked to", "goroutine ", "bulkhead-agent: the agent ended with status 2"},
		"exhaust": {"fatal error: concurrent map writes", "bulkhead-agent: the agent ended with status 2"},
		"killed":  {"bulkhead-agent: the agent was ended by signal 9"},
	} {
		t.Run(command, func(t *testing.T) {
			disk := guesttest.Ext4(t, 16)
			g := boot(t, "q35", map[string]string{"data": disk})
			g.do("data %s / 100000", workload.NewID())
			if command == "killed" {
				command = "kill " + g.do("pid") + " 9"
			}
			fmt.Fprintln(g.conn, command)
			g.machine.AwaitEnd()
			console := g.machine.Console()
			for _, w := range words {
				if !strings.Contains(console, w) {
					t.Errorf("the console lacks %q", w)
				}
			}
			if strings.Contains(console, "Kernel panic") {
				t.Error("the kernel panicked")
			}
			unmountedClean(t, disk)
		})
	}
}
