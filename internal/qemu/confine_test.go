package qemu

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// image makes a disk image that only its owner may open.
func image(t testing.TB, content string) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.WriteString(content)
	if err := errorsJoin(f.Truncate(1<<20), f.Chmod(0o600)); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// TestConfinement looks at a running QEMU from outside. The guest hangs, which
// takes no processor time.
func TestConfinement(t *testing.T) { testConfinement(t, TCG) }

func testConfinement(t *testing.T, accel Accel) {
	cfg := config(t, code{}.stack().print("up").hang())
	cfg.Accel = accel
	if err := os.Chmod(cfg.Kernel, 0o600); err != nil { // QEMU's user may not open it
		t.Fatal(err)
	}
	cfg.Initramfs = cfg.Kernel
	cfg.Disks = []Disk{{Serial: "image0", File: image(t, "a"), ReadOnly: true}, {Serial: "image1", ReadOnly: true}, {Serial: "data", File: image(t, "b")}}
	m := start(t, cfg)
	console(t, m, "up")
	proc := func(name string) string { return fmt.Sprintf("/proc/%d/%s", m.Pid(), name) }

	t.Run("status", func(t *testing.T) {
		b, err := os.ReadFile(proc("status"))
		if err != nil {
			t.Fatal(err)
		}
		id := strconv.Itoa(testID)
		ids := strings.Join([]string{id, id, id, id}, "\t")
		for name, want := range map[string]string{
			"Uid": ids, "Gid": ids, "Groups": "", "NoNewPrivs": "1", "Seccomp": "2", "Seccomp_filters": "2",
			"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000",
			"CapBnd": "0000000000000000", "CapAmb": "0000000000000000",
		} {
			if got := field(string(b), name); got != want {
				// QEMU's own sandbox may be more than one filter.
				if name == "Seccomp_filters" && got > want {
					continue
				}
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	})
	t.Run("namespaces", func(t *testing.T) {
		for _, ns := range []string{"mnt", "pid", "net", "ipc", "uts", "cgroup"} {
			theirs, err1 := os.Readlink(proc("ns/" + ns))
			ours, err2 := os.Readlink("/proc/self/ns/" + ns)
			if err1 != nil || err2 != nil || theirs == ours {
				t.Errorf("%s: %q, and ours is %q (%v, %v)", ns, theirs, ours, err1, err2)
			}
		}
	})
	t.Run("network", func(t *testing.T) {
		b, err := os.ReadFile(proc("net/dev"))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")[2:]
		for _, l := range lines {
			name, _, _ := strings.Cut(strings.TrimSpace(l), ":")
			// The kernel adds its own where their modules are loaded: all are down.
			if name != "lo" && !slices.Contains([]string{"tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"}, name) {
				t.Errorf("interface %s", name)
			}
		}
		for _, table := range []string{"net/route", "net/tcp", "net/tcp6", "net/udp", "net/unix", "net/fib_trie"} {
			b, _ := os.ReadFile(proc(table))
			if n := len(strings.Split(strings.TrimSpace(string(b)), "\n")); n > 1 && table != "net/unix" {
				t.Errorf("%s: %s", table, b)
			}
		}
	})
	t.Run("mounts", func(t *testing.T) {
		b, err := os.ReadFile(proc("mountinfo"))
		if err != nil {
			t.Fatal(err)
		}
		var at []string
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			at = append(at, f[4])
			options := strings.Split(f[5], ",")
			want := []string{"ro", "nosuid", "nodev"}
			if accel == KVM && f[4] == "/dev" {
				want = []string{"ro", "nosuid", "noexec"}
			}
			for _, want := range want {
				if !slices.Contains(options, want) {
					t.Errorf("%s: options %s lack %s", f[4], f[5], want)
				}
			}
			if f[6] != "-" {
				t.Errorf("%s propagates: %s", f[4], f[6])
			}
		}
		for _, want := range []string{"/", pathBinary, pathKernel, pathInitramfs, pathFirmware + "/qboot.rom"} {
			if !slices.Contains(at, want) {
				t.Errorf("no mount at %s", want)
			}
		}
		for _, no := range []string{"/proc", "/dev", "/sys", "/etc"} {
			if slices.Contains(at, no) && (accel != KVM || no != "/dev") {
				t.Errorf("a mount at %s", no)
			}
		}
	})
	t.Run("root", func(t *testing.T) {
		var files []string
		err := filepath.WalkDir(proc("root")+"/", func(path string, e os.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				files = append(files, strings.TrimPrefix(path, proc("root")))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			inside := f == pathBinary || f == pathKernel || f == pathInitramfs || strings.HasPrefix(f, pathLibraries+"/lib") ||
				strings.HasPrefix(f, pathFirmware+"/") || strings.HasPrefix(f, pathModules+"/") || strings.HasPrefix(f, "/lib64/ld-linux")
			if !inside && (accel != KVM || f != "/dev/kvm") {
				t.Errorf("QEMU sees %s", f)
			}
		}
	})
	t.Run("descriptors", func(t *testing.T) { checkDescriptors(t, m) })
	t.Run("limits", func(t *testing.T) {
		b, err := os.ReadFile(proc("limits"))
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{
			"Max core file size": "0", "Max locked memory": "0", "Max msgqueue size": "0", "Max file size": strconv.Itoa(1 << 20), // image's
			"Max processes": strconv.Itoa(maxThreads), "Max open files": strconv.Itoa(maxOpen),
		} {
			_, line, _ := strings.Cut(string(b), name)
			if f := strings.Fields(line); len(f) < 2 || f[0] != want || f[1] != want {
				t.Errorf("%s: %v, want %s", name, f[:2], want)
			}
		}
	})
	t.Run("environment", func(t *testing.T) {
		b, err := os.ReadFile(proc("environ"))
		if want := strings.Join(environment, "\x00") + "\x00"; err != nil || string(b) != want {
			t.Errorf("%q, %v; want %q", b, err, want)
		}
	})
	t.Run("command", func(t *testing.T) {
		b, err := os.ReadFile(proc("cmdline"))
		if want := strings.Join(Command(cfg), "\x00") + "\x00"; err != nil || string(b) != want {
			t.Errorf("%q, %v; want %q", b, err, want)
		}
	})
	t.Run("run directory", func(t *testing.T) {
		if e, err := os.ReadDir(cfg.Dir); err != nil || len(e) > 0 {
			t.Errorf("%v, %v: want it empty", e, err)
		}
	})
}

func field(status, name string) string {
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return "(none)"
}

// checkDescriptors wants those that QEMU was given, with QEMU's own event
// descriptors, and nothing else.
func checkDescriptors(t *testing.T, m *Machine) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", m.Pid())
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var disks []string
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		n, _ := strconv.Atoi(e.Name())
		switch {
		case n == 0 && to == "/dev/null":
		case n <= 2 && strings.HasPrefix(to, "pipe:"):
		case n >= fdQMP && n < fdDisks && strings.HasPrefix(to, "socket:"):
		case strings.HasPrefix(to, "anon_inode:[eventfd]"), strings.HasPrefix(to, "anon_inode:[eventpoll]"), strings.HasPrefix(to, "anon_inode:[signalfd]"):
		case m.cfg.Accel == KVM && (to == "/dev/kvm" || strings.HasPrefix(to, "anon_inode:kvm-")):
		case filepath.Base(to) == "disk":
			disks = append(disks, to)
		default:
			t.Errorf("descriptor %d is %s", n, to)
		}
	}
	slices.Sort(disks)
	var want []string
	for _, d := range m.cfg.Disks {
		if d.File != "" {
			want = append(want, d.File)
		}
	}
	slices.Sort(want)
	if got := slices.Compact(disks); !slices.Equal(got, want) {
		t.Errorf("disks %q, want %q", got, want)
	}
}

// TestDisksAreOpenedAsAsked: a read-only disk cannot be written through QEMU's
// descriptor of it, either.
func TestDisksAreOpenedAsAsked(t *testing.T) {
	cfg := config(t, code{}.stack().print("up").hang())
	cfg.Disks = []Disk{{Serial: "ro", File: image(t, "a"), ReadOnly: true}, {Serial: "rw", File: image(t, "b")}}
	m := start(t, cfg)
	console(t, m, "up")
	for i, want := range []int{unix.O_RDONLY, unix.O_RDWR} {
		modes := accessModes(t, m, cfg.Disks[i].File)
		if len(modes) == 0 || slices.ContainsFunc(modes, func(got int) bool { return got != want }) {
			t.Errorf("disk %d: modes %v, want %d only", i, modes, want)
		}
	}
}

// accessModes are those of QEMU's descriptors of a file.
func accessModes(t *testing.T, m *Machine, file string) (modes []int) {
	dir := fmt.Sprintf("/proc/%d/", m.Pid())
	entries, err := os.ReadDir(dir + "fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, _ := os.Readlink(dir + "fd/" + e.Name()); to != file {
			continue
		}
		b, err := os.ReadFile(dir + "fdinfo/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		flags, err := strconv.ParseInt(field(string(b), "flags"), 8, 64)
		if err != nil {
			t.Fatal(err)
		}
		modes = append(modes, int(flags)&unix.O_ACCMODE)
	}
	return modes
}

func errorsJoin(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
