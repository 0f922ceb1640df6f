package probe

import (
	"slices"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// TestElsewhere: which paths a file of the kernel's has, by lines of mountinfo.
func TestElsewhere(t *testing.T) {
	for _, tt := range []struct {
		line, file, want string
	}{
		{"1 0 0:5 / /proc rw - proc proc rw", "/proc/sys/vm/swappiness", ""},
		{"1 0 0:5 /sys /proc/sys ro - proc proc rw", "/proc/sys/vm/swappiness", ""},
		{"1 0 0:5 / /x rw - proc proc rw", "/proc/sys/vm/swappiness", "/x/sys/vm/swappiness"},
		{"1 0 0:5 /sys/vm /x rw - proc proc rw", "/proc/sys/vm/swappiness", "/x/swappiness"},
		{"1 0 0:5 /sys/vm/swappiness /x rw - proc proc rw", "/proc/sys/vm/swappiness", "/x"},
		{"1 0 0:5 /sys/v /x rw - proc proc rw", "/proc/sys/vm/swappiness", ""},
		{"1 0 0:5 /sys/kernel /x rw - proc proc rw", "/proc/sys/vm/swappiness", ""},
		{"1 0 0:5 / /x rw - sysfs sysfs rw", "/sys/power/state", "/x/power/state"},
		{"1 0 0:5 / /x rw - sysfs sysfs rw", "/proc/sys/vm/swappiness", ""},
		{"1 0 0:5 / /x rw - debugfs debugfs rw", "/sys/kernel/debug/clear_warn_once", "/x/clear_warn_once"},
		{"1 0 0:5 / /x rw - tracefs tracefs rw", "/sys/kernel/tracing/tracing_on", "/x/tracing_on"},
		{"1 0 0:5 / /x rw - binfmt_misc b rw", "/proc/sys/fs/binfmt_misc/register", "/x/register"},
		{"1 0 0:5 / /x rw - ext4 /dev/vda rw", "/proc/sys/vm/swappiness", ""},
	} {
		list, whole := parseMounts(tt.line)
		if !whole {
			t.Fatal(tt.line)
		}
		var want []string
		if tt.want != "" {
			want = []string{tt.want}
		}
		if got := elsewhere(list, tt.file); !slices.Equal(got, want) {
			t.Errorf("%s, %s: got %q, want %q", tt.line, tt.file, got, want)
		}
	}
}

// TestJudgeEverywhere: a file that opens below another mount is one that opens, its mount
// is known, and where not every mount was looked at nothing is held.
func TestJudgeEverywhere(t *testing.T) {
	usual := report.Evidence{Call: openCall("/proc/irq/default_smp_affinity", 1), Errno: "EROFS"}
	other := report.Evidence{Call: openCall("/x/irq/default_smp_affinity", 1)}
	bind := &Declared{Boundary: "container", Binds: []Bind{{Source: "/proc", Target: "/x"}}}
	for _, tt := range []struct {
		name     string
		declared *Declared
		calls    []report.Evidence
		want     report.Verdict
	}{
		{"shut", nil, []report.Evidence{usual, {Call: mountsRead}}, report.Held},
		{"open elsewhere", nil, []report.Evidence{usual, other, {Call: mountsRead}}, report.Leaked},
		{"open elsewhere, as was asked for", bind, []report.Evidence{usual, other, {Call: mountsRead}}, report.Leaked},
		{"open elsewhere, and nobody asked", &Declared{Boundary: "container"}, []report.Evidence{usual, other, {Call: mountsRead}}, report.Weaker},
		{"open elsewhere, in half of mountinfo", nil, []report.Evidence{usual, other, {Call: mountsRead, Value: cutShort}}, report.Leaked},
		{"half of mountinfo", nil, []report.Evidence{usual, {Call: mountsRead, Value: cutShort}}, report.Unknown},
		{"no mountinfo", nil, []report.Evidence{usual, {Call: mountsRead, Errno: "EACCES"}}, report.Unknown},
		{"mountinfo not read", nil, []report.Evidence{usual}, report.Unknown},
	} {
		if f := judged(NewContext(nil, tt.declared), "files.interrupt-routing", tt.calls...); f.Verdict != tt.want {
			t.Errorf("%s: got %s, %s%s; want %s", tt.name, f.Verdict, f.Observed, f.Reason, tt.want)
		}
	}
	masked := []report.Evidence{{Call: readCall("/proc/keys")}, {Call: mountsRead}}
	if f := judged(NewContext(nil, nil), "leaks.keys", masked...); f.Verdict != report.Held {
		t.Errorf("masked: %s, %s%s", f.Verdict, f.Observed, f.Reason)
	}
	if f := judged(NewContext(nil, nil), "leaks.keys", append(masked, report.Evidence{Call: readCall("/x/keys"), Value: "a key"})...); f.Verdict != report.Leaked {
		t.Errorf("masked at its usual path alone: %s, %s%s", f.Verdict, f.Observed, f.Reason)
	}
}

// TestKernelRoots: which mounts are searched for writable files of the kernel's.
func TestKernelRoots(t *testing.T) {
	list, _ := parseMounts(`1 0 0:5 / /proc rw - proc proc rw
1 0 0:5 /sys /proc/sys ro - proc proc rw
1 0 0:5 / /x rw - proc proc rw
1 0 0:5 /sys /x/more rw - proc proc rw
1 0 0:5 /irq /xy rw - proc proc rw
1 0 0:5 /1/root /init rw - proc proc rw
1 0 0:6 /kernel /k rw - sysfs sysfs rw
1 0 0:7 / /sys/fs/cgroup rw - cgroup2 cgroup rw
1 0 0:8 / /data rw - ext4 /dev/vda rw`)
	want := []string{"/proc", "/sys", "/x", "/xy", "/k"}
	if got := kernelRoots(list, []string{"/proc", "/sys"}); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
