package probe

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

// judged is what follows for one probe from what it tried.
func judged(c *Context, id string, calls ...report.Evidence) report.Finding {
	o := &Observations{Format: observationFormat, Tried: []Observation{{Probe: id, Calls: calls}}}
	for _, f := range Judge(c, o, "").Findings {
		if f.ID == id {
			return f
		}
	}
	return report.Finding{}
}

// TestHostDirectory: which lines of mountinfo are directories that a host runs on.
func TestHostDirectory(t *testing.T) {
	made := t.TempDir()
	for _, name := range []string{"group", "passwd", "shadow"} {
		if err := os.WriteFile(made+"/"+name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for line, want := range map[string]string{
		"1 0 8:1 /etc /x rw - ext4 /dev/vda rw":                                              "/etc of ext4, rw",
		"1 0 8:1 /etc /etc ro,nosuid - ext4 /dev/vda rw":                                     "/etc of ext4, ro",
		"1 0 8:1 /var/lib/docker /x rw - xfs /dev/vda rw":                                    "/var/lib/docker of xfs, rw",
		"1 0 8:1 /root/.ssh /x rw - overlay overlay rw":                                      "/root/.ssh of overlay, rw",
		"1 0 0:9 /dbus /x rw - tmpfs tmpfs rw":                                               "/run/dbus of tmpfs, rw",
		"1 0 0:9 /user /x rw - tmpfs tmpfs rw":                                               "/run/user of tmpfs, rw",
		"1 0 0:9 /@/etc /x rw - btrfs /dev/vda rw,subvol=/@":                                 "/etc of btrfs, rw",
		"1 0 0:9 /root/usr /x rw - btrfs /dev/vda rw,subvol=/root":                           "/usr of btrfs, rw",
		"1 0 0:9 /@ /x rw - btrfs /dev/vda rw":                                               "/ of btrfs, rw",
		"1 0 0:9 / " + made + " rw - virtiofs share rw":                                      "a virtiofs with what /etc has, rw",
		"1 0 8:1 / / rw - ext4 /dev/vda rw":                                                  "",
		"1 0 0:9 / " + made + " rw - overlay overlay rw":                                     "",
		"1 0 0:9 / /etc rw - virtiofs share rw":                                              "", // of an image's volume
		"1 0 8:1 /var/lib/docker/containers/1/hosts /etc/hosts rw - ext4 /dev/vda rw":        "",
		"1 0 8:1 /var/lib/docker/volumes/data/_data /data rw - ext4 /dev/vda rw":             "",
		"1 0 0:9 /@/var/lib/docker/volumes/data/_data /data rw - btrfs /dev/vda rw":          "",
		"1 0 8:1 /srv/data /x rw - ext4 /dev/vda rw":                                         "",
		"1 0 8:1 /etc/nginx /etc/nginx ro - ext4 /dev/vda rw":                                "",
		"1 0 0:5 /null /proc/kcore rw - devtmpfs devtmpfs rw":                                "",
		"1 0 0:9 /sys /proc/sys ro - proc proc rw":                                           "",
		"1 0 0:9 /run /sys/fs/cgroup rw - cgroup2 cgroup2 rw":                                "",
		"1 0 0:9 / /no/such/directory rw - tmpfs tmpfs rw":                                   "",
		"1 0 0:9 /containers/overlay-containers/1/userdata/hosts /etc/hosts rw - tmpfs t rw": "",
	} {
		list, whole := parseMounts(line + "\n")
		if !whole || len(list) != 1 {
			t.Fatalf("%s: %+v", line, list)
		}
		if got := hostDirectory(&list[0]); got != want {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
}

// TestHostFile: what opens the door, who declared it, and what nobody can tell.
func TestHostFile(t *testing.T) {
	mountsOK := report.Evidence{Call: mountsRead}
	gone, there := report.Evidence{Call: readCall("/tmp/c"), Errno: "ENOENT"}, report.Evidence{Call: readCall("/x/c"), Value: "the host's token"}
	etc := report.Evidence{Call: mountCall("/x"), Value: "/etc of ext4, rw"}
	put, none := Targets{Files: []string{"/tmp/c"}, Token: "t"}, Targets{}
	etcBind := []Bind{{Source: "/srv", Target: "/srv"}, {Source: "/etc", Target: "/x", System: "/etc"}}
	for _, tt := range []struct {
		name     string
		targets  Targets
		declared *Declared
		calls    []report.Evidence
		want     report.Verdict
		said     string
	}{
		{"none of it", put, nil, []report.Evidence{mountsOK, gone}, report.Held, "ENOENT"},
		{"the file", put, nil, []report.Evidence{mountsOK, gone, there}, report.Leaked, "/x/c"},
		{"the file, and no mountinfo", put, nil, []report.Evidence{{Call: mountsRead, Errno: "EACCES"}, there}, report.Leaked, "/x/c"},
		{"no mountinfo", put, nil, []report.Evidence{{Call: mountsRead, Errno: "EACCES"}, gone}, report.Unknown, "EACCES"},
		{"half of mountinfo", put, nil, []report.Evidence{{Call: mountsRead, Value: cutShort}, gone}, report.Unknown, "longer"},
		{"a directory in half of mountinfo", put, nil, []report.Evidence{etc, {Call: mountsRead, Value: cutShort}, gone}, report.Leaked, "/x is /etc of ext4, rw"},
		{"nothing put up", none, nil, []report.Evidence{mountsOK}, report.Unknown, "put up"},
		{"a directory, nothing put up", none, nil, []report.Evidence{etc, mountsOK}, report.Leaked, "/x is /etc of ext4, rw"},
		{"nothing tried", put, nil, []report.Evidence{mountsOK}, report.Unknown, "nothing was tried"},
		{"a directory that nobody asked for", put, &Declared{Boundary: "container", Binds: etcBind[:1]}, []report.Evidence{etc, mountsOK, gone}, report.Weaker, "/x"},
		{"a directory of another file system that was asked for", put, &Declared{Boundary: "container", Binds: []Bind{{Source: "/mnt/data/etc", Target: "/x"}}}, []report.Evidence{etc, mountsOK, gone}, report.Held, "ENOENT"},
		{"the file below a directory that was asked for", put, &Declared{Boundary: "container", Binds: etcBind}, []report.Evidence{mountsOK, gone, there}, report.Leaked, "/x/c"},
		{"the file below another one", put, &Declared{Boundary: "container", Binds: etcBind[:1]}, []report.Evidence{mountsOK, gone, there}, report.Weaker, "/x/c"},
		{"a directory that was asked for", put, &Declared{Boundary: "container", Binds: etcBind}, []report.Evidence{etc, mountsOK, gone}, report.Leaked, "/x"},
	} {
		c := NewContext(nil, tt.declared)
		c.Targets = tt.targets
		f := judged(c, "files.host-file", tt.calls...)
		if f.Verdict != tt.want || !strings.Contains(f.Observed+f.Reason, tt.said) {
			t.Errorf("%s: got %s, %s%s; want %s with %q", tt.name, f.Verdict, f.Observed, f.Reason, tt.want, tt.said)
		}
		if tt.want == report.Leaked && tt.declared != nil && f.Fix != "leave out --volume /etc:/x" {
			t.Errorf("%s: %s", tt.name, f.Fix)
		}
	}
}

// TestSockets: what listens where a host's socket is mounted.
func TestSockets(t *testing.T) {
	refused := report.Evidence{Call: connectCall("/run/docker.sock"), Errno: "ENOENT"}
	for _, tt := range []struct {
		name  string
		calls []report.Evidence
		want  report.Verdict
	}{
		{"none", []report.Evidence{{Call: mountsRead}, refused}, report.Held},
		{"one elsewhere", []report.Evidence{{Call: mountsRead}, refused, {Call: connectCall("/x/docker.sock")}}, report.Leaked},
		{"nobody listens", []report.Evidence{{Call: mountsRead}, refused, {Call: connectCall("/x"), Errno: "ECONNREFUSED"}}, report.Held},
		{"another name", []report.Evidence{{Call: mountsRead}, refused, {Call: connectCall("/x"), Value: nameless}}, report.Unknown},
		{"another name, and nobody", []report.Evidence{{Call: mountsRead}, refused, {Call: connectCall("/x"), Value: nameless, Errno: "ECONNREFUSED"}}, report.Held},
		{"no mountinfo", []report.Evidence{{Call: mountsRead, Errno: "ENOENT"}, refused}, report.Unknown},
		{"half of mountinfo", []report.Evidence{{Call: mountsRead, Value: cutShort}, refused}, report.Unknown},
		{"nothing read", []report.Evidence{refused}, report.Unknown},
	} {
		if f := judged(NewContext(nil, nil), "files.engine-sockets", tt.calls...); f.Verdict != tt.want {
			t.Errorf("%s: got %s, %s%s; want %s", tt.name, f.Verdict, f.Observed, f.Reason, tt.want)
		}
	}
	if got := ends("/run/containerd/containerd.sock"); !slices.Equal(got, []string{"run/containerd/containerd.sock", "containerd/containerd.sock", "containerd.sock"}) {
		t.Errorf("got %q", got)
	}
}

// TestNothingPutUp: without anything to look for nobody can say that it is out of reach.
func TestNothingPutUp(t *testing.T) {
	for _, id := range []string{"files.host-file", "namespaces.shared-memory", "network.loopback", "network.abstract-sockets"} {
		if f := judged(NewContext(nil, nil), id, report.Evidence{Call: mountsRead}); f.Verdict != report.Unknown || !strings.Contains(f.Reason, "put up") {
			t.Errorf("%s: %s, %s", id, f.Verdict, f.Reason)
		}
	}
}

// TestDescriptors finds what a program was given, of whatever kind, and nothing that
// it opened itself.
func TestDescriptors(t *testing.T) {
	given, own := make([]int, 2), make([]int, 2)
	if err := unix.Pipe2(own, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if err := unix.Pipe2(given, 0); err != nil {
		t.Fatal(err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	event, err := unix.Eventfd(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	all := append([]int{event, pair[0], pair[1]}, given...)
	defer func() {
		for _, fd := range append(all, own...) {
			unix.Close(fd)
		}
	}()
	var p prober
	observeDescriptors(&p)
	found := ", " + p.o.Calls[0].Value
	for _, fd := range all {
		if !strings.Contains(found, fmt.Sprintf(", %d is ", fd)) {
			t.Errorf("descriptor %d is missing: %s", fd, found)
		}
	}
	for _, fd := range own {
		if strings.Contains(found, fmt.Sprintf(", %d is ", fd)) {
			t.Errorf("descriptor %d is ours: %s", fd, found)
		}
	}
}

// TestManyDevices: a door behind many that are shut is found, and evidence is no
// longer for that.
func TestManyDevices(t *testing.T) {
	var many []device
	for n := range 3 * maxCalls {
		many = append(many, device{path: fmt.Sprintf("/dev/no-such-disk-%d", n), id: "b 8:0"})
	}
	var p prober
	if openOne(&p, many) || len(p.o.Calls) >= maxCalls || inDevices(&view{o: &p.o}).state != shut {
		t.Errorf("%d calls, %+v", len(p.o.Calls), inDevices(&view{o: &p.o}))
	}
	if said := len(many) - len(p.o.Calls); p.o.Calls[0].Value != fmt.Sprintf("and %d more like it", said) {
		t.Errorf("the first call says %q, %d are not written down", p.o.Calls[0].Value, said)
	}
	p = prober{}
	if !openOne(&p, append(many, device{path: "/dev/null", id: "b 8:1"})) || len(p.o.Calls) >= maxCalls || inDevices(&view{o: &p.o}).state != open {
		t.Errorf("%d calls, %+v", len(p.o.Calls), inDevices(&view{o: &p.o}))
	}
}

// TestWritableDevice: a device that may be written and not read is open.
func TestWritableDevice(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("/dev", ".bulkhead-test-") // which is not nodev
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	node := dir + "/null"
	err = unix.Mknod(node, unix.S_IFCHR, int(unix.Mkdev(1, 3)))
	if err = errors.Join(err, os.Chmod(node, 0o222), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	done := make(chan prober)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread, and its user, end with this
		var p prober
		// Of this thread alone: root would read it whatever its mode says.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			p.add("setresuid", "", errno)
		} else {
			openOne(&p, []device{{path: node, id: "c 1:3"}})
		}
		done <- p
	}()
	p := <-done
	if out := inDevices(&view{o: &p.o}); out.state != open || !strings.Contains(out.observed, "W_OK") {
		t.Errorf("%+v of %+v", out, p.o.Calls)
	}
}
