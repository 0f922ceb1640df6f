package probe

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

// TestRootsCutShort looks at fewer processes than there are: what was not looked at is
// not shut.
func TestRootsCutShort(t *testing.T) {
	here := []string{"/proc"}
	all := &prober{}
	all.lookAtRoots(here, math.MaxInt)
	if all.o.Trouble != "" || len(all.o.Calls) != 1 {
		t.Errorf("all processes: got %+v", all.o)
	}
	none := &prober{}
	none.lookAtRoots(here, 0)
	if none.o.Trouble == "" {
		t.Errorf("none of them: got %+v", none.o)
	}
	many := &prober{}
	many.lookAtRoots(slices.Repeat([]string{"/nowhere"}, 10*maxCalls), math.MaxInt)
	if many.o.Trouble == "" || len(many.o.Calls) >= maxCalls {
		t.Errorf("more mounts than there is room for: %q, %d calls", many.o.Trouble, len(many.o.Calls))
	}
}

// TestJudgeRoots: a root that can be entered counts wherever procfs is mounted, if the
// processes are others'; where not every mount was looked at nothing is held.
func TestJudgeRoots(t *testing.T) {
	own := report.Evidence{Call: rootsCall("/proc"), Value: ownRoot}
	read := report.Evidence{Call: mountsRead}
	foreign := report.Evidence{Call: rootsCall("/x"), Value: "/x/1/root/"}
	for _, tt := range []struct {
		name  string
		calls []report.Evidence
		host  bool // kthreadd is seen
		want  report.Verdict
	}{
		{"own", []report.Evidence{own, read}, false, report.Held},
		{"refused elsewhere", []report.Evidence{own, {Call: rootsCall("/x"), Errno: "EACCES"}, read}, true, report.Held},
		{"open elsewhere", []report.Evidence{own, foreign, read}, true, report.Leaked},
		{"another root of one's own", []report.Evidence{{Call: rootsCall("/proc"), Value: "/proc/5/root/"}, read}, false, report.Held},
		{"half of mountinfo", []report.Evidence{own, {Call: mountsRead, Value: cutShort}}, false, report.Unknown},
		{"an odd error", []report.Evidence{own, {Call: rootsCall("/x"), Errno: "EIO"}, read}, false, report.Unknown},
		{"nothing tried", []report.Evidence{read}, false, report.Unknown},
	} {
		threads := Observation{Probe: "namespaces.processes", Calls: []report.Evidence{{Call: kernelThread, Value: noThread}, read}}
		if tt.host {
			threads.Calls[0].Value = "/x/2 is kthreadd"
		}
		o := &Observations{Format: observationFormat, Tried: []Observation{
			{Probe: "escape.processes", Calls: tt.calls}, threads, {Probe: "namespaces.pid", Calls: []report.Evidence{{Call: linkCall("/proc/self/ns/pid"), Value: "pid:[4026532000]"}}},
		}}
		for _, f := range Judge(NewContext(nil, nil), o, "").Findings {
			if f.ID == "escape.processes" && f.Verdict != tt.want {
				t.Errorf("%s: got %s, %s%s; want %s", tt.name, f.Verdict, f.Observed, f.Reason, tt.want)
			}
		}
	}
}

// TestAskNode makes nodes on mounts that are nodev, where none could be opened, and on
// others, wherever they are in the list.
func TestAskNode(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts, device nodes")
	}
	dir := t.TempDir()
	at := func(name string, flags uintptr) string {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("none", path, "tmpfs", flags, "mode=700"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
		return path
	}
	open, nodev, readOnly := at("open", 0), at("nodev", unix.MS_NODEV), at("ro", unix.MS_RDONLY)
	device := unix.Mkdev(7, 0) // a loop device, there or not
	if _, _, err := askNode([]string{open}, "test", device); err != nil {
		t.Skipf("no node of a disk can be made and opened here: %v", err)
	}
	for _, tt := range []struct {
		name     string
		places   []string
		at, says string
		err      error
	}{
		{"nodev alone", []string{readOnly, nodev}, nodev, onNodev, unix.EACCES},
		{"another behind it", []string{nodev, readOnly, open}, open, "", nil},
		{"none", []string{readOnly}, readOnly, "", unix.EROFS},
		{"no file system for nodes", []string{"/proc", open}, open, "", nil},
	} {
		if place, says, err := askNode(tt.places, "test", device); place != tt.at || says != tt.says || err != tt.err {
			t.Errorf("%s: got %q in %s, %v; want %q in %s, %v", tt.name, says, place, err, tt.says, tt.at, tt.err)
		}
	}
	for _, d := range []string{open, nodev} {
		if left, err := os.ReadDir(d); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", d, left, err)
		}
	}
}

// TestJudgeOwnDisks: what the device cgroup allows is no open door where every node would
// lie on a nodev mount, and not a shut one, as there may be other mounts.
func TestJudgeOwnDisks(t *testing.T) {
	list := report.Evidence{Call: readCall(partitions)}
	allowed := report.Evidence{Call: "mknod(/tmp, b 8:0) and access(2)"}
	denied := report.Evidence{Call: "mknod(/tmp, b 8:1) and access(2)", Errno: "EPERM"}
	nodev := report.Evidence{Call: "mknod(/tmp, b 8:2) and access(2)", Errno: "EACCES", Value: onNodev}
	for _, tt := range []struct {
		name  string
		calls []report.Evidence
		want  state
	}{
		{"denied", []report.Evidence{list, denied}, shut},
		{"allowed", []report.Evidence{list, denied, allowed}, open},
		{"allowed on nodev", []report.Evidence{list, denied, nodev}, unclear},
		{"allowed on nodev, and elsewhere", []report.Evidence{list, nodev, allowed}, open},
	} {
		if got := judgeOwnDisks(&view{o: &Observation{Calls: tt.calls}}); got.state != tt.want {
			t.Errorf("%s: got %+v, want %v", tt.name, got, tt.want)
		}
	}
}
