package probe

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/vm/vmtest"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/nettest"
	"github.com/seed-f5e3b97b/bulkhead/internal/probe"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/seed-f5e3b97b/bulkhead/tests/abilities"
	"github.com/seed-f5e3b97b/bulkhead/tests/programs"
)

var update = flag.Bool("update", false, "write the table of docs/probes.md anew")

// bin is the directory of the programs.
var bin string

func TestMain(m *testing.M) {
	flag.Parse()
	nettest.Isolate(func() {
		if !testing.Short() && !inGuest() {
			vmtest.Fetch() // TestGoldenAll boots machines
		}
	})
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "probetest")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(dir)
	if os.Getenv("BULKHEAD_BIN") == "" && inGuest() { // which has no Go, and the programs on its PATH
		program, err := exec.LookPath("bulkhead")
		if err != nil {
			fmt.Println(err)
			return 1
		}
		bin = filepath.Dir(program)
	} else if bin, err = programs.Find(dir); err != nil {
		fmt.Println(err)
		return 1
	}
	if err := removeHierarchy(dir); err != nil { // of a run that was killed
		fmt.Println(err)
		return 1
	}
	code := m.Run()
	if err := removeHierarchy(dir); err != nil {
		fmt.Println(err)
		return 1
	}
	return code
}

// inGuest reports whether this is the test guest.
func inGuest() bool { return os.Getenv("BULKHEAD_GUEST") != "" }

// world is a state root with the image "box", and what scenes refer to.
type world struct {
	*testing.T
	root, dir string
	words     map[string]string // {disk} and the like
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("", "prb") // socket paths end at 107 bytes (unix(7))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	leakcheck.Check(t, leakcheck.Options{Paths: []string{dir}, Wait: 10 * time.Second})
	w := &world{T: t, root: filepath.Join(dir, "r"), dir: dir, words: map[string]string{}}
	image := exec.Command("tar", "-C", makeRoot(t, filepath.Join(dir, "image")), "-cf", filepath.Join(dir, "image.tar"), ".")
	if out, err := image.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.must("import", filepath.Join(dir, "image.tar"), "box")
	t.Cleanup(func() {
		if left := strings.TrimSpace(w.must("ps", "-aq")); left != "" {
			t.Errorf("workloads are left: %s", left)
		}
		w.must("network", "prune", "-f")
		programs.RemoveCgroups()
	})
	return w
}

// makeRoot is the image's root: an empty one, with a program for run.
func makeRoot(t *testing.T, dir string) string {
	t.Helper()
	for _, d := range []string{"", "tmp", "etc", "mnt", "run"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// command runs bulkhead.
func (w *world) command(args ...string) (stdout, stderr string, code int) {
	w.Helper()
	return w.run(exec.Command(filepath.Join(bin, "bulkhead"), args...))
}

func (w *world) run(cmd *exec.Cmd) (stdout, stderr string, code int) {
	w.Helper()
	var out, errs bytes.Buffer
	cmd.Env = append(os.Environ(), "BULKHEAD_ROOT="+w.root)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.Fatalf("%s: %v", cmd.Path, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func (w *world) must(args ...string) string {
	w.Helper()
	out, errs, code := w.command(args...)
	if code != 0 {
		w.Fatalf("bulkhead %s: exit code %d: %s", strings.Join(args, " "), code, errs)
	}
	return out
}

// decode is a report that a program wrote.
func (w *world) decode(out, errs string, code int) *report.Document {
	w.Helper()
	d, err := report.Decode(strings.NewReader(out))
	if err != nil {
		w.Fatalf("no report, exit code %d: %v: %s", code, err, errs)
	}
	if code != d.ExitCode() {
		w.Errorf("exit code %d, the report says %d", code, d.ExitCode())
	}
	return d
}

// look makes a scene and returns what the prober found.
func (w *world) look(s scene) map[string]report.Finding {
	w.Helper()
	args := make([]string, len(s.flags))
	for n, f := range s.flags {
		args[n] = w.fill(f)
	}
	var d *report.Document
	switch s.way {
	case Probed, Wrapped:
		d = w.decode(w.command(append(append([]string{"probe", "--json"}, args...), "box")...))
	case Declared:
		program, file := filepath.Join(bin, "bulkhead-probe"), w.context(s.context)
		args = append([]string{"run", "--rm", "-v", program + ":/probe:ro", "-v", file + ":/context:ro"}, args...)
		d = w.decode(w.command(append(args, "box", "/probe", "-json", "-context", "/context")...))
	case Unconfined:
		d = w.unconfined(s)
	case Rooted:
		d = w.rooted()
	}
	found := map[string]report.Finding{}
	for _, f := range d.Reports[0].Findings {
		found[f.ID] = f
	}
	return found
}

// fill replaces what the test makes, and makes it when it is first wanted.
func (w *world) fill(flag string) string {
	for _, word := range []string{"{dir}", "{disk}", "{socket}", "{sockets}", "{cgroup}", "{address}"} {
		if !strings.Contains(flag, word) {
			continue
		}
		if w.words[word] == "" {
			w.words[word] = w.make(word)
		}
		flag = strings.ReplaceAll(flag, word, w.words[word])
	}
	return flag
}

func (w *world) make(word string) string {
	switch word {
	case "{disk}":
		return disk(w.T)
	case "{socket}":
		name := filepath.Join(w.dir, "docker.sock")
		serve(w.T, "unix", name)
		return name
	case "{sockets}":
		dir := filepath.Join(w.dir, "sockets")
		if err := os.Mkdir(dir, 0o755); err != nil {
			w.Fatal(err)
		}
		serve(w.T, "unix", filepath.Join(dir, "docker.sock"))
		return dir
	case "{cgroup}":
		// A hierarchy of version 1 with no controller, which every kernel has room for.
		dir := filepath.Join(w.dir, "cgroup")
		if err := os.Mkdir(dir, 0o755); err != nil {
			w.Fatal(err)
		}
		if err := syscall.Mount("none", dir, "cgroup", 0, "none,"+hierarchy); err != nil {
			w.Skipf("needs cgroups of version 1: %v", err)
		}
		w.Cleanup(func() {
			if err := leaveHierarchy(dir); err != nil { // TestMain looks whether it goes
				w.Error(err)
			}
		})
		return dir
	case "{address}":
		return serve(w.T, "tcp", "127.0.0.1:0")
	}
	dir := filepath.Join(w.dir, "plain")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.Fatal(err)
	}
	return dir
}

// hierarchy is the option that names the hierarchy of a test.
const hierarchy = "name=bulkhead-doors"

// leaveHierarchy empties a hierarchy, in which the engine makes cgroups as in every
// one, and unmounts it.
func leaveHierarchy(dir string) error {
	var groups []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != dir {
			groups = append(groups, path)
		}
		return nil
	})
	for _, g := range slices.Backward(groups) {
		os.Remove(g) // fails while a process is in it
	}
	return syscall.Unmount(dir, syscall.MNT_DETACH)
}

// removeHierarchy takes it from the machine. The kernel lets go of one some time after
// it was unmounted everywhere, in what a workload or a helper saw of the host, too; and
// it keeps one that still had a cgroup then, until it is mounted and unmounted again.
func removeHierarchy(dir string) error {
	gone := func() (bool, error) {
		for end := time.Now().Add(3 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			b, err := os.ReadFile("/proc/self/cgroup")
			if err != nil || !strings.Contains(string(b), ":"+hierarchy+":") {
				return err == nil, err
			}
			if time.Now().After(end) {
				return false, nil
			}
		}
	}
	for range 4 {
		if ok, err := gone(); ok || err != nil {
			return err
		}
		if err := syscall.Mount("none", dir, "cgroup", 0, "none,"+hierarchy); err != nil {
			return err
		}
		if err := leaveHierarchy(dir); err != nil {
			return err
		}
	}
	return errors.New("the hierarchy " + hierarchy + " is left on the machine")
}

// serve listens, answers nobody, and returns the address.
func serve(t *testing.T, network, address string) string {
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// disk is a block device of this machine that root can open.
func disk(t *testing.T) string {
	list, err := os.ReadDir("/sys/class/block")
	if err != nil {
		t.Skipf("needs block devices: %v", err)
	}
	for _, d := range list {
		name := "/dev/" + d.Name()
		if f, err := os.Open(name); err == nil {
			f.Close()
			return name
		}
	}
	t.Skip("needs a block device that root can open")
	return ""
}

// context writes a context as it would be told on this host, changed by a scene.
func (w *world) context(change func(*probe.Context)) string {
	w.Helper()
	h, err := probe.LocalHost()
	if err != nil {
		w.Fatal(err)
	}
	c := probe.NewContext(h, &probe.Declared{Boundary: "container"})
	if change != nil {
		change(c)
	}
	b, err := c.Encode()
	if err != nil {
		w.Fatal(err)
	}
	file := filepath.Join(w.dir, "context.json")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		w.Fatal(err)
	}
	return file
}

// unconfined runs the prober as a process of this host.
func (w *world) unconfined(s scene) *report.Document {
	h, err := probe.LocalHost()
	if err != nil {
		w.Fatal(err)
	}
	b, err := probe.NewContext(h, nil).Encode()
	if err != nil {
		w.Fatal(err)
	}
	file := filepath.Join(w.dir, "host.json")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		w.Fatal(err)
	}
	open, err := os.Open("/")
	if err != nil {
		w.Fatal(err)
	}
	defer open.Close()
	const chown = 0 // CAP_CHOWN
	cmd := exec.Command(filepath.Join(bin, "bulkhead-probe"), "-json", "-context", file)
	cmd.ExtraFiles = []*os.File{open}
	cmd.SysProcAttr = &syscall.SysProcAttr{AmbientCaps: []uintptr{chown}}
	return w.decode(w.run(cmd))
}

// rooted runs the prober in a directory as its root, and outside of it.
func (w *world) rooted() *report.Document {
	root := filepath.Join(w.dir, "tree")
	for name, text := range map[string]string{
		"proc/kcore": "\x7fELF", "proc/sched_debug": "Sched Debug Version", "proc/sysrq-trigger": "", "proc/self/oom_score_adj": "-500",
		"sys/devices/virtual/powercap/intel-rapl": "", "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3", "proc/scsi/scsi": "Attached devices:",
	} {
		file := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			w.Fatal(err)
		}
	}
	program, err := os.ReadFile(filepath.Join(bin, "bulkhead-probe"))
	if err == nil {
		err = os.WriteFile(filepath.Join(root, "probe"), program, 0o755)
	}
	if err != nil {
		w.Fatal(err)
	}
	cmd := &exec.Cmd{Path: "/probe", Args: []string{"/probe", "-json"}, SysProcAttr: &syscall.SysProcAttr{Chroot: root}}
	return w.decode(w.run(cmd))
}

// shutOnHost tells doors that this host keeps shut for everybody, root included.
func shutOnHost(id string) bool {
	if id != "kernel.symbols" { // kernel.kptr_restrict=2
		return false
	}
	b, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		return true
	}
	for line := range bytes.Lines(b) { // the first symbol's address may be zero
		if !bytes.HasPrefix(line, []byte("0000000000000000")) {
			return false
		}
	}
	return true
}

// TestDisksByNumber: whoever can make nodes and has none of a disk is kept from disks
// by the device cgroup, and that is found out, not taken for granted.
func TestDisksByNumber(t *testing.T) {
	w := newWorld(t)
	w.fill("{disk}")
	found := w.look(probed("--userns host --cap-add MKNOD", ""))
	f := found["escape.disks"]
	asked := slices.ContainsFunc(f.Evidence, func(e report.Evidence) bool { return strings.Contains(e.Call, "access(2)") && e.Errno == "EPERM" })
	if f.Verdict != report.Held || found["capabilities.device-nodes"].Verdict != report.Leaked || !asked {
		t.Errorf("%s: %s%s %v", f.Verdict, f.Observed, f.Reason, f.Evidence)
	}
}

// narrow is a profile that compares families of sockets as filters do, in 64 bits,
// of which the kernel looks at 32.
const narrow = `{
	"defaultAction": "SCMP_ACT_ALLOW",
	"architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"],
	"syscalls": [
		{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 38, "op": "SCMP_CMP_EQ"}]},
		{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}]}
	]
}`

// TestSocketsOtherwise: a family is open if there is one way to it, however well the
// usual one is shut.
func TestSocketsOtherwise(t *testing.T) {
	s, err := seccomp.Default(seccomp.Conditions{Kernel: seccomp.KernelVersion{Major: 6, Minor: 1}})
	if err != nil {
		t.Fatal(err)
	}
	seccomp.AllowSocketcall(s)
	multiplexed, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	for name, tt := range map[string]struct {
		profile, want string
		i386          bool
	}{
		"a bit more":    {profile: narrow, want: "the filter lets pass: socket(1<<32 | %s)"},
		"by socketcall": {profile: string(multiplexed), want: "the filter lets pass: socketcall(SYS_SOCKET), by int $0x80", i386: true},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.i386 && !abilities.TakesI386() {
				t.Skip("needs a machine that takes the system calls of i386")
			}
			one := *w
			one.T = t
			file := filepath.Join(w.dir, "profile.json")
			if err := os.WriteFile(file, []byte(tt.profile), 0o600); err != nil {
				t.Fatal(err)
			}
			found := one.look(probed("--security-opt seccomp="+file, ""))
			for id, family := range map[string]string{"syscalls.crypto-sockets": "AF_ALG", "syscalls.vsock": "AF_VSOCK"} {
				want := strings.ReplaceAll(tt.want, "%s", family)
				if f := found[id]; f.Verdict != report.Leaked || f.Observed != want {
					t.Errorf("%s: %s, %s%s; want it leaked, and %s", id, f.Verdict, f.Observed, f.Reason, want)
				}
			}
		})
	}
}

// oldCalls is a profile that refuses user namespaces by the calls that old ones know.
const oldCalls = `{
	"defaultAction": "SCMP_ACT_ALLOW",
	"architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
	"syscalls": [
		{"names": ["unshare"], "action": "SCMP_ACT_ERRNO"},
		{"names": ["clone"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 268435456, "valueTwo": 268435456, "op": "SCMP_CMP_MASKED_EQ"}]}
	]
}`

// TestClone3: what makes user namespaces is every call that does.
func TestClone3(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(w.dir, "profile.json")
	if err := os.WriteFile(file, []byte(oldCalls), 0o600); err != nil {
		t.Fatal(err)
	}
	const want = "the filter lets pass: clone3"
	if f := w.look(probed("--security-opt seccomp="+file, ""))["syscalls.user-namespaces"]; f.Verdict != report.Leaked || f.Observed != want {
		t.Errorf("%s, %s%s; want it leaked, and %s", f.Verdict, f.Observed, f.Reason, want)
	}
}

// TestNothingPutUp: where nobody put anything up on the host, nobody knows whether it is
// within reach.
func TestNothingPutUp(t *testing.T) {
	w := newWorld(t)
	for id, f := range w.look(scene{way: Declared}) {
		switch id {
		case "files.host-file", "namespaces.shared-memory", "network.loopback", "network.abstract-sockets":
			if f.Verdict != report.Unknown || !strings.Contains(f.Reason, "put up") {
				t.Errorf("%s: %s%s, want unknown", id, f.Verdict, f.Reason)
			}
		}
	}
}

// TestDefaultIsShut: of a workload that was asked for nothing, no door is open and
// none is unknown.
func TestDefaultIsShut(t *testing.T) {
	w := newWorld(t)
	for id, f := range w.look(scene{}) {
		switch f.Verdict {
		case report.Held, report.NotApplicable:
		default:
			t.Errorf("%s: %s: %s%s %v", id, f.Verdict, f.Observed, f.Reason, f.Evidence)
		}
		if sceneFor(shut, id) == nil && f.Verdict != report.Held && !known(f) {
			t.Errorf("%s: %s: %s, and no other scene shuts it", id, f.Verdict, f.Reason)
		}
	}
}

// known tells doors that this machine's kernel or processor does not have.
func known(f report.Finding) bool {
	return f.ID == "syscalls.i386" || strings.Contains(f.Reason, "this architecture")
}

// TestShut finds doors shut that a workload that was asked for nothing does not
// have.
func TestShut(t *testing.T) { play(t, shut) }

// TestOpen opens each door on purpose: it must be seen.
func TestOpen(t *testing.T) { play(t, opened) }

func play(t *testing.T, scenes []scene) { playIn(t, newWorld(t), scenes) }

func playIn(t *testing.T, w *world, scenes []scene) {
	for _, s := range scenes {
		t.Run(s.how, func(t *testing.T) {
			one := *w
			one.T = t
			one.words = map[string]string{}
			found := one.look(s)
			for _, id := range s.covers() {
				f := found[id]
				if f.Verdict == report.NotApplicable && known(f) || f.Verdict == report.Held && shutOnHost(id) {
					continue
				}
				if f.Verdict != s.verdict {
					t.Errorf("%s: got %s, want %s: %s%s %+v", id, f.Verdict, s.verdict, f.Observed, f.Reason, f.Evidence)
				}
				if f.Verdict.Open() && (f.Fix == "" || f.Enables == "" || len(f.References) == 0 || f.Observed == "") {
					t.Errorf("%s: an open door without fix, consequence, reference or observation: %+v", id, f)
				}
			}
		})
	}
}

// TestEveryDoor wants every probe to be opened by some scene, and every scene to
// name probes that exist.
func TestEveryDoor(t *testing.T) {
	ids := map[string]bool{}
	groups := map[string]bool{}
	for _, p := range probe.Probes() {
		ids[p.ID], groups[p.Group()] = true, true
		if sceneFor(opened, p.ID) == nil {
			t.Errorf("%s: nothing opens this door", p.ID)
		}
	}
	for _, s := range slices.Concat(shut, opened, sandboxShut, sandboxOpened) {
		for _, id := range s.covers() {
			if !ids[id] {
				t.Errorf("%s: there is no probe %s", s.how, id)
			}
		}
	}
	t.Logf("%d probes in %d groups", len(ids), len(groups))
}

// The table of docs/probes.md lies between these.
const (
	tableBegin   = "<!-- The table is written by `go test ./tests/probe -run TestDocs -update`. -->\n\n"
	matrixBegin  = "<!-- The matrix is written by the same, from the verdicts in tests/probe/testdata. -->\n\n"
	summaryBegin = "<!-- The table is written by `go test ./tests/probe -run TestDocs -update`, from recorded verdicts. -->\n\n"
	sandboxBegin = "<!-- The table for gVisor is written by the same. -->\n\n"
	tableEnd     = "\n<!-- End of the table. -->"
)

// TestDocs finds the tables of docs/probes.md as the scenes say.
func TestDocs(t *testing.T) {
	matrix, err := MatrixTable()
	if err != nil {
		t.Fatal(err)
	}
	summary, err := SummaryTable()
	if err != nil {
		t.Fatal(err)
	}
	checkTable(t, "docs/probes.md", tableBegin, Table())
	checkTable(t, "docs/probes.md", sandboxBegin, SandboxTable())
	checkTable(t, "docs/probes.md", matrixBegin, matrix)
	checkTable(t, "README.md", summaryBegin, summary)
}

func checkTable(t *testing.T, name, tableBegin, table string) {
	t.Helper()
	file := filepath.Join("../..", name)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), tableBegin)
	old, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", file)
	}
	if *update {
		if err := os.WriteFile(file, []byte(before+tableBegin+table+tableEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if old != table {
		t.Errorf("the table of %s is not current: go test ./tests/probe -run TestDocs -update", file)
	}
}

// TestNothingLeft finds what scenes share as it was: names, segments, files.
func TestNothingLeft(t *testing.T) {
	w := newWorld(t)
	list := func() (all []string) {
		for _, pattern := range []string{"/tmp/*bulkhead-probe-*", "/run/*bulkhead-probe-*", "/var/tmp/*bulkhead-probe-*", "/tmp/.bulkhead-probe*", "/dev/shm/.bulkhead-probe*", "/.bulkhead-probe*"} {
			found, _ := filepath.Glob(pattern) // the patterns are well-formed
			all = append(all, found...)
		}
		shm, err := os.ReadFile("/proc/sysvipc/shm")
		if err != nil {
			t.Fatal(err)
		}
		name, err := os.Hostname()
		if err != nil {
			t.Fatal(err)
		}
		return append(all, string(shm), name)
	}
	before := list()
	w.unconfined(scene{})
	w.look(probed("--uts host --userns host --cap-add SYS_ADMIN --security-opt seccomp=unconfined", ""))
	if after := list(); !slices.Equal(before, after) {
		t.Errorf("before %q\nafter %q", before, after)
	}
}

// TestDiff compares a run with an earlier one.
func TestDiff(t *testing.T) {
	w := newWorld(t)
	out, errs, code := w.command("probe", "--json", "box")
	w.decode(out, errs, code)
	file := filepath.Join(w.dir, "before.json")
	if err := os.WriteFile(file, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, code = w.command("probe", "--diff", file, "--uts", "host", "box")
	if code != report.ExitLeak || !strings.Contains(out, "namespaces.uts                 leaked, before: held") || !strings.Contains(out, ": 1\n  container") {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
	var d report.Document
	out, errs, _ = w.command("probe", "--json", "--diff", file, "--uts", "host", "box")
	if err := json.Unmarshal([]byte(out), &d); err != nil || len(d.Changes) != 1 || !d.Changes[0].Opened() {
		t.Errorf("%v: %+v %s", err, d.Changes, errs)
	}
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code = w.command("probe", "--diff", file, "box"); code != report.ExitError || !strings.Contains(errs, "not a report") {
		t.Errorf("exit code %d: %s", code, errs)
	}
}

// TestBadInput fails with 4 and says how to mend it; nothing is started.
func TestBadInput(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct{ args, want string }{
		{"", "probe needs an image"},
		{"box more", "takes an image and nothing more"},
		{"--tty box", "--tty has no meaning for probe"},
		{"--restart always box", "--restart has no meaning for probe"},
		{"--timeout 0s box", "no time at all"},
		{"--all --boundary container box", "leave out --boundary, --runtime and --tenant, or --all"},
		{"--diff /nonexistent box", "no such file"},
		{"--boundary fly box", "unknown boundary"},
		{"--pull never nothing", "nothing"},
		{"--fly box", "lists the flags"},
	} {
		out, errs, code := w.command(append([]string{"probe"}, strings.Fields(tt.args)...)...)
		if code != report.ExitError || out != "" || !strings.Contains(errs, tt.want) {
			t.Errorf("probe %s: exit code %d, %q, %q; want 4 and %q", tt.args, code, out, errs, tt.want)
		}
	}
	prober := filepath.Join(bin, "bulkhead-probe")
	for _, args := range [][]string{{"more"}, {"-context", "/nonexistent"}, {"-context", "/dev/null"}, {"-observe"}, {"-fly"}} {
		if out, _, code := w.run(exec.Command(prober, args...)); code != report.ExitError || out != "" {
			t.Errorf("bulkhead-probe %q: exit code %d, %q", args, code, out)
		}
	}
}
