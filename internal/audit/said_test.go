package audit

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// TestFamilies runs filters that refuse a family to some calls only.
func TestFamilies(t *testing.T) {
	const (
		head = `{"defaultAction": "SCMP_ACT_ERRNO", "architectures": [%s], "syscalls": [`
		x64  = `"SCMP_ARCH_X86_64"`
	)
	profile := func(arches, rules string) []byte {
		return []byte(strings.Replace(head, "%s", arches, 1) + rules + "]}")
	}
	rule := func(op, value string) string {
		return `{"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": ` + value + `, "op": "` + op + `"}]}`
	}
	masked := `{"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 4294967264, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}`
	for _, tt := range []struct {
		name, arches, rules string
		want                []string
	}{
		{"no sockets", x64, `{"names": ["read"], "action": "SCMP_ACT_ALLOW"}`, nil},
		{"all", x64, `{"names": ["socket"], "action": "SCMP_ACT_ALLOW"}`, []string{"AF_ALG", "AF_VSOCK"}},
		{"logged", x64, `{"names": ["socket"], "action": "SCMP_ACT_LOG"}`, []string{"AF_ALG", "AF_VSOCK"}},
		{"not vsock, of 64 bits", x64, rule("SCMP_CMP_NE", "40"), []string{"AF_ALG", "AF_VSOCK (with a bit above the 32 that the kernel looks at)"}},
		{"below both", x64, rule("SCMP_CMP_LT", "38"), nil},
		{"below both, of 32 bits", x64, masked, nil},
		{"by socketcall", x64 + `, "SCMP_ARCH_X86"`, `{"names": ["socketcall"], "action": "SCMP_ACT_ALLOW"}`,
			[]string{"AF_ALG (by socketcall(2) of 32-bit programs)", "AF_VSOCK (by socketcall(2) of 32-bit programs)"}},
	} {
		got := profileFamilies(profile(tt.arches, tt.rules), nil, report.Evidence{})
		if !got.Known || !slices.Equal(got.Value, tt.want) {
			t.Errorf("%s: %q (%s), want %q", tt.name, got.Value, got.Why, tt.want)
		}
	}
	for _, bad := range []string{``, `{}`, `{"defaultAction": "SCMP_ACT_MAYBE"}`} {
		if got := profileFamilies([]byte(bad), nil, report.Evidence{}); got.Known || got.Why == "" {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

// TestNoFilter: a profile that lets every call pass is none, whoever reads it.
func TestNoFilter(t *testing.T) {
	info := func(profile string) *Engine {
		return &Engine{Kind: Docker, Profile: said("/etc/docker/seccomp.json"), ProfileText: []byte(profile)}
	}
	quoted := func(s string) string {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	readers := map[string]func(profile string) ([]*Config, error){
		"Docker": func(p string) ([]*Config, error) {
			return ParseDocker([]byte(`{"HostConfig": {"SecurityOpt": [`+quoted("seccomp="+p)+`]}}`), nil)
		},
		"Podman": func(p string) ([]*Config, error) {
			return ParsePodman([]byte(`{"HostConfig": {"SecurityOpt": [`+quoted("seccomp="+p)+`]}}`), nil)
		},
		"the engine's default": func(p string) ([]*Config, error) {
			return ParseDocker([]byte(`{"HostConfig": {"Privileged": false, "SecurityOpt": null}}`), info(p))
		},
		"config.json": func(p string) ([]*Config, error) {
			c, err := ParseOCI([]byte(`{"ociVersion": "1.0.0", "linux": {"seccomp": ` + p + `}}`))
			return []*Config{c}, err
		},
		"ours": func(p string) ([]*Config, error) {
			return ParseWorkload([]byte(`[{"Spec": {"security": {"seccomp": ` + quoted(p) + `}}}]`))
		},
	}
	for profile, off := range map[string]bool{
		`{"defaultAction": "SCMP_ACT_ALLOW"}`:               true,
		`{"defaultAction": "SCMP_ACT_LOG", "syscalls": []}`: true,
		`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}, {"names": ["write"], "action": "SCMP_ACT_LOG"}]}`: true,
		`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]}`:                                               false,
		`{"defaultAction": "SCMP_ACT_LOG", "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_KILL_PROCESS"}]}`:                                          false,
		`{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}`:                                                 false,
		`{"defaultAction": "SCMP_ACT_ERRNO"}`: false,
	} {
		for name, read := range readers {
			list, err := read(profile)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if a := checkSeccomp(list[0]); a.verdict.Open() != off || a.verdict == report.Unknown {
				t.Errorf("%s of %s: %s, %q", profile, name, a.verdict, a.observed)
			}
		}
	}
}

// TestReachable: only a user other than root with no_new_privs is kept from a set.
func TestReachable(t *testing.T) {
	caps := []string{"CAP_SYS_ADMIN"}
	for _, tt := range []struct {
		name       string
		root, noNP Said[bool]
		ambient    []string
		want       bool
	}{
		{"root", said(true), said(true), nil, true},
		{"nobody, confined", said(false), said(true), nil, false},
		{"nobody, and setuid programs", said(false), said(false), nil, true},
		{"nobody, nothing said", said(false), unsaid[bool](""), nil, true},
		{"who knows", unsaid[bool](""), said(true), nil, true},
		{"ambient", said(false), said(true), caps, true},
	} {
		c := &Config{Kind: OCI, Caps: said(caps), Root: tt.root, NoNewPrivileges: tt.noNP, Ambient: tt.ambient}
		if a := checkDangerous(c); a.verdict.Open() != tt.want {
			t.Errorf("%s: %s", tt.name, a.verdict)
		}
	}
}

// TestUserNamespace: where engines say whether root inside is the host's.
func TestUserNamespace(t *testing.T) {
	info := func(options string) *Engine {
		e, err := ParseEngine(Docker, []byte(`{"ServerVersion": "28.5.2", "SecurityOptions": [`+options+`]}`))
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	rootless, err := ParseEngine(Podman, []byte(`{"host": {"security": {"rootless": true}}}`))
	if err != nil {
		t.Fatal(err)
	}
	silent, err := ParseEngine(Docker, []byte(`{"ServerVersion": ""}`)) // the daemon did not answer
	if err != nil {
		t.Fatal(err)
	}
	const docker = `{"HostConfig": {"UsernsMode": "%m"}, "ResolvConfPath": "%p"}`
	const podman = `{"HostConfig": {"UsernsMode": "%m"}, "StaticDir": "%p"}`
	for _, tt := range []struct {
		name       string
		kind       Kind
		text       string
		mode, path string
		engine     *Engine
		want       report.Verdict
	}{
		{"plain", Docker, docker, "", "/var/lib/docker/containers/1/resolv.conf", nil, report.Leaked},
		{"remapped, by its path", Docker, docker, "", "/var/lib/docker/231072.231072/containers/1/resolv.conf", nil, report.Held},
		{"rootless, by its path", Docker, docker, "", "/home/me/.local/share/docker/containers/1/resolv.conf", nil, report.Held},
		{"elsewhere", Docker, docker, "", "/srv/docker/containers/1/resolv.conf", nil, report.Unknown},
		{"no paths", Docker, docker, "", "", nil, report.Unknown},
		{"a silent daemon", Docker, docker, "", "", silent, report.Unknown},
		{"plain, by info", Docker, docker, "", "/srv/docker/containers/1/resolv.conf", info(`"name=seccomp,profile=builtin"`), report.Leaked},
		{"remapped, by info", Docker, docker, "", "", info(`"name=userns"`), report.Held},
		{"remapped, and not this one", Docker, docker, "host", "/var/lib/docker/231072.231072/containers/1/resolv.conf", info(`"name=userns"`), report.Leaked},
		{"rootless, by info", Docker, docker, "", "", info(`"name=rootless"`), report.Held},
		{"rootless, in the engine's namespace", Docker, docker, "host", "", info(`"name=rootless"`), report.Held},
		{"Podman", Podman, podman, "", "/var/lib/containers/storage/x", nil, report.Leaked},
		{"Podman with a range", Podman, podman, "auto", "/var/lib/containers/storage/x", nil, report.Held},
		{"Podman without root, by its path", Podman, podman, "", "/home/me/.local/share/containers/storage/x", nil, report.Held},
		{"Podman without root, by info", Podman, podman, "", "/srv/x", rootless, report.Held},
		{"Podman elsewhere", Podman, podman, "", "/srv/x", nil, report.Unknown},
	} {
		text := strings.NewReplacer("%m", tt.mode, "%p", tt.path).Replace(tt.text)
		list, err := Parse(tt.kind, []byte(text), tt.engine)
		if err != nil {
			t.Fatal(err)
		}
		if a := checkUserNS(list[0]); a.verdict != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, a.verdict, tt.want)
		}
	}
}

// TestDefaults: what an engine's defaults decide.
func TestDefaults(t *testing.T) {
	const text = `{"HostConfig": {"Privileged": false, "SecurityOpt": %o, "CapAdd": null, "CapDrop": null}, "AppArmorProfile": "", "ProcessLabel": "%l", "State": {"Pid": 0, "StartedAt": "%s"}}`
	const never, once = "0001-01-01T00:00:00Z", "2026-12-01T13:33:49Z"
	for _, tt := range []struct {
		name, options, label, started, info string
		noNew, seccomp, sockets, lsm        report.Verdict
	}{
		{"no engine", "null", "", never, "", report.Unknown, report.Unknown, report.Unknown, report.Unknown},
		{"no engine, started", "null", "", once, "", report.Unknown, report.Unknown, report.Unknown, report.Leaked},
		{"a label", "null", "system_u:system_r:container_t:s0", once, "", report.Unknown, report.Unknown, report.Unknown, report.Held},
		{"old", "null", "", never, `"name=seccomp,profile=default"|28.5.2`, report.Leaked, report.Held, report.Leaked, report.Leaked},
		{"a distribution's", "null", "", never, `"name=seccomp,profile=default","name=apparmor"|20.10.24+dfsg1`, report.Leaked, report.Held, report.Unknown, report.Unknown},
		// The profile compares 64 bits, and leaves socketcall(2) open.
		{"new", "null", "", never, `"name=seccomp,profile=builtin","name=no-new-privileges"|29.4.2`, report.Held, report.Held, report.Leaked, report.Leaked},
		{"no filter", "null", "", never, `"name=apparmor"|29.4.2`, report.Leaked, report.Leaked, report.Leaked, report.Unknown},
		{"a file", "null", "", never, `"name=seccomp,profile=/etc/x.json"|29.4.2`, report.Leaked, report.Held, report.Unknown, report.Leaked},
		{"asked", `["no-new-privileges", "seccomp=unconfined", "apparmor=unconfined"]`, "", never, "", report.Held, report.Leaked, report.Leaked, report.Leaked},
		{"as Docker wrote it once", `["no-new-privileges:true"]`, "", never, "", report.Held, report.Unknown, report.Unknown, report.Unknown},
		{"refused", `["no-new-privileges=false"]`, "", never, `"name=no-new-privileges","name=seccomp,profile=builtin"|28.5.2`, report.Leaked, report.Held, report.Leaked, report.Leaked},
		{"nonsense", `["no-new-privileges=maybe", "seccomp=/old/file.json"]`, "", never, "", report.Unknown, report.Held, report.Unknown, report.Unknown},
	} {
		var e *Engine
		if options, version, ok := strings.Cut(tt.info, "|"); ok {
			var err error
			if e, err = ParseEngine(Docker, []byte(`{"ServerVersion": "`+version+`", "SecurityOptions": [`+options+`]}`)); err != nil {
				t.Fatal(err)
			}
		}
		list, err := ParseDocker([]byte(strings.NewReplacer("%o", tt.options, "%l", tt.label, "%s", tt.started).Replace(text)), e)
		if err != nil {
			t.Fatal(err)
		}
		for id, want := range map[string]report.Verdict{
			"privileges.no-new-privs": tt.noNew, "syscalls.seccomp": tt.seccomp, "syscalls.sockets": tt.sockets, "lsm.profile": tt.lsm,
		} {
			for _, f := range Judge(list[0], "").Findings {
				if f.ID == id && f.Verdict != want {
					t.Errorf("%s: %s is %s, want %s", tt.name, id, f.Verdict, want)
				}
			}
		}
	}
}

// TestMounts: what a mount of the host leads to, by its source.
func TestMounts(t *testing.T) {
	own, hosts := said(Namespace{}), said(Namespace{Host: true})
	for _, tt := range []struct {
		source   string
		readOnly bool
		user     Said[Namespace]
		kind     Kind
		files    report.Severity // of files.host, "" for held
		socket   bool
	}{
		{"/", false, hosts, Docker, report.Critical, false},
		{"/../", true, hosts, Docker, report.High, false},
		{"/", false, own, Docker, report.High, false},
		{"/", false, own, Bulkhead, report.Critical, false},
		{"/etc", false, hosts, Docker, report.Critical, false},
		{"/etc/", true, hosts, Docker, report.High, false},
		{"/etc/nginx", true, hosts, Docker, report.Medium, false},
		{"/etc/nginx", false, hosts, Docker, report.High, false},
		{"/etc/nginx", false, own, Docker, report.Medium, false},
		{"/etc/shadow", true, hosts, Docker, report.High, false},
		{"/etc/cron.d/job", false, hosts, Docker, report.Critical, false},
		{"/etc/localtime", true, hosts, Docker, "", false},
		{"/etc/ssl/certs", true, hosts, Docker, "", false},
		{"/etc/ssl/certs", false, hosts, Docker, report.High, false},
		{"/etc/pki", false, hosts, Docker, report.High, false},
		{"/etc/pki", true, hosts, Docker, "", false},
		{"/etc/hosts", false, hosts, Docker, report.High, false},
		{"/etc/resolv.conf", false, hosts, Docker, report.High, false},
		{"/etc/resolv.conf", true, hosts, Docker, "", false},
		{"/usr/local/share/ca-certificates", false, hosts, Docker, report.High, false},
		{"/etcetera", false, hosts, Docker, "", false},
		{"/usr/lib", false, hosts, Docker, report.Critical, false},
		{"/usr/local", false, hosts, Docker, report.Critical, false},
		{"/var/spool", false, hosts, Docker, report.Critical, false},
		{"/var/spool/", true, hosts, Docker, report.High, false},
		{"/var/spool/cron/crontabs", false, hosts, Docker, report.Critical, false},
		{"/var/spool/postfix", false, hosts, Docker, "", false},
		{"/usr/share/fonts", true, hosts, Docker, report.Medium, false},
		{"/usr/local/bin", false, hosts, Docker, report.Critical, false},
		{"/proc/sys", true, hosts, Docker, report.High, false},
		{"/sys/kernel/debug", false, hosts, Docker, report.Critical, false},
		{"/root/.ssh", true, hosts, Docker, report.High, false},
		{"/var/run", true, hosts, Docker, report.High, false},
		{"/srv/data", false, hosts, Docker, "", false},
		{"/home/me/src", false, hosts, Docker, "", false},
		{"/var/lib/postgresql", false, hosts, Docker, "", false},
		{"/var/run/docker.sock", false, hosts, Docker, "", true},
		{"/run/containerd/containerd.sock", true, hosts, Docker, "", true},
		{"/srv/proxy/docker.sock", true, hosts, Docker, "", true},
		{"/run/podman", false, hosts, Docker, "", true},
		{"/var/lib/docker", false, hosts, Docker, "", true},
		{"/var/lib/docker/volumes/data/_data", false, hosts, Docker, "", false},
		{"/var/lib/docker/containers/1/hostname", false, hosts, OCI, "", false},
		{"/var/lib/docker/containers/1/hosts", false, hosts, OCI, "", false},
		{"/run/containers/storage/overlay-containers/1/userdata/resolv.conf", false, hosts, OCI, "", false},
		{"/run/bulkhead", true, own, Bulkhead, "", true},
		{"/run/dbus", true, hosts, Docker, "", true},
		{"/var/run/dbus/system_bus_socket", true, hosts, Docker, "", true},
		{"/srv/proxy/system_bus_socket", true, hosts, Docker, "", true},
		{"/run/systemd", false, hosts, Docker, "", true},
		{"/run/systemd/private", true, hosts, Docker, "", true},
		{"/run/systemd/resolve/stub-resolv.conf", true, hosts, Docker, "", false},
		{"/run/systemd/journal/dev-log", false, hosts, Docker, "", false},
		{"/run/user", true, hosts, Docker, "", true},
		{"/run/user/1000", true, hosts, Docker, "", true},
		{"/run/user/1000/bus", true, hosts, Docker, "", true},
		{"/run/user/1000/podman/podman.sock", true, hosts, Docker, "", true},
		{"/run/user/1000/wayland-0", false, hosts, Docker, "", false},
		{"/run/username", false, hosts, Docker, "", false},
	} {
		c := &Config{Kind: tt.kind, UserNS: tt.user, Mounts: said([]Mount{{Source: tt.source, ReadOnly: tt.readOnly}})}
		files, socket := checkHostFiles(c), checkSocket(c)
		if files.verdict.Open() != (tt.files != "") || files.severity != tt.files && tt.files != "" {
			t.Errorf("%s, read-only %v: files are %s %s, want %q", tt.source, tt.readOnly, files.verdict, files.severity, tt.files)
		}
		if socket.verdict.Open() != tt.socket {
			t.Errorf("%s: the socket is %s", tt.source, socket.verdict)
		}
	}
}

// TestDeviceMounts: which mounts are devices of the host, or directories of such.
// One that is mounted read-only can be written to all the same.
func TestDeviceMounts(t *testing.T) {
	for source, want := range map[string]report.Severity{
		"/dev/null": "", "/dev/zero": "", "/dev/full": "", "/dev/random": "", "/dev/urandom": "", "/dev/tty": "", "/dev/../srv": "", "/device": "",
		"/dev/pts": report.High, "/dev/pts/0": report.High, "/dev/ptmx": report.High, "/dev/console": report.High, "/dev/shm": report.High,
		"/dev/mqueue": report.High, "/dev/fuse": report.High, "/dev/sda": report.Critical, "//dev/mapper/root": report.Critical,
	} {
		for _, readOnly := range []bool{false, true} {
			c := &Config{Kind: Docker, Devices: said([]Device(nil)), Mounts: said([]Mount{{Source: source, ReadOnly: readOnly}})}
			if a := checkDevices(c); a.verdict.Open() != (want != "") || want == report.Critical && a.severity != want {
				t.Errorf("%s: %s %s, want %q", source, a.verdict, a.severity, want)
			}
		}
	}
}

// TestConfigMounts: what of the host is inside by the root, by a mount that is no
// bind, or by propagation, and is not where an engine's own layers are.
func TestConfigMounts(t *testing.T) {
	mount := func(kind, source, options string) string {
		return `"mounts": [{"destination": "/x", "type": "` + kind + `", "source": "` + source + `", "options": [` + options + `]}], "linux": {}`
	}
	for _, tt := range []struct {
		name, text                  string
		files, devices, propagation string // the severity, "" for held
	}{
		{"a bundle's root", `"root": {"path": "rootfs"}, "linux": {}`, "", "", ""},
		{"the host's", `"root": {"path": "/"}, "linux": {}`, "critical", "", ""},
		{"the host's, to read", `"root": {"path": "/", "readonly": true}, "linux": {}`, "high", "", ""},
		{"an engine's", `"root": {"path": "/var/lib/docker/overlay2/1/merged"}, "linux": {}`, "", "", ""},
		{"a bundle's in root's home", `"root": {"path": "/root/web/rootfs"}, "linux": {}`, "", "", ""},
		{"root's home", `"root": {"path": "/root"}, "linux": {}`, "critical", "", ""},
		{"a disk", mount("ext4", "/dev/sda1", ""), "", "critical", ""},
		{"what serves a file system", mount("fuse", "/dev/fuse", ""), "", "", ""},
		{"the same by its program", mount("fuse.sshfs", "/dev/fuse", ""), "", "", ""},
		{"a disk, to read", mount("xfs", "/dev/./mapper/x", `"ro"`), "", "critical", ""},
		{"a name that looks like one", mount("tmpfs", "/dev/shm", ""), "", "", ""},
		{"a lower directory", mount("overlay", "overlay", `"lowerdir=/:/srv", "upperdir=/srv/a", "workdir=/srv/b"`), "high", "", ""},
		{"the last lower directory, added", mount("overlay", "overlay", `"ro", "lowerdir+=/srv,lowerdir+=/root"`), "high", "", ""},
		{"an upper directory", mount("overlay", "overlay", `"lowerdir=/srv,upperdir=/usr,workdir=/srv/b"`), "critical", "", ""},
		{"an upper directory of fuse", mount("fuse.fuse-overlayfs", "x", `"upperdir=/etc/ssh"`), "critical", "", ""},
		{"layers", mount("overlay", "overlay", `"lowerdir=/var/lib/containers/storage/overlay/1/diff:/var/lib/docker/overlay2/2/diff"`), "", "", ""},
		{"all layers", mount("overlay", "overlay", `"lowerdir=/srv:/var/lib"`), "high", "", ""},
		{"all nodes", mount("devtmpfs", "udev", `"ro"`), "", "critical", ""},
		{"a root that shares", `"linux": {"rootfsPropagation": "shared"}`, "", "", "medium"},
		{"a root that shares, and what is below it", `"linux": {"rootfsPropagation": "rshared"}`, "", "", "medium"},
		{"a root that follows", `"linux": {"rootfsPropagation": "rslave"}`, "", "", ""},
	} {
		c, err := ParseOCI([]byte(`{"ociVersion": "1.0.0", ` + tt.text + `}`))
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"files.host": tt.files, "devices.nodes": tt.devices, "files.propagation": tt.propagation}
		for _, f := range Judge(c, "").Findings {
			if s, ok := want[f.ID]; ok && (f.Verdict.Open() != (s != "") || s != "" && string(f.Severity) != s) {
				t.Errorf("%s: %s is %s %s, want %q", tt.name, f.ID, f.Verdict, f.Severity, s)
			}
		}
	}
}

// TestSocketBelow: what starts programs of the host is found below the directories of
// services, in an overlay as in a bind.
func TestSocketBelow(t *testing.T) {
	for _, mount := range []string{
		`"type": "bind", "source": "/run/systemd/system/multi-user.target.wants"`,
		`"type": "overlay", "source": "overlay", "options": ["lowerdir=/srv,upperdir=/run/systemd/system/multi-user.target.wants"]`,
	} {
		c, err := ParseOCI([]byte(`{"ociVersion": "1.0.0", "linux": {}, "mounts": [{"destination": "/x", ` + mount + `}]}`))
		if err != nil {
			t.Fatal(err)
		}
		open := false
		for _, f := range Judge(c, "").Findings {
			open = open || f.ID == "files.socket" && f.Verdict.Open()
		}
		if !open {
			t.Errorf("%s: not found", mount)
		}
	}
}

// TestPaths takes single paths out of the usual lists.
func TestPaths(t *testing.T) {
	without := func(list []string, path string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(p string) bool { return p == path })
	}
	for _, tt := range []struct {
		name             string
		masked, readOnly []string
		paths, leaks     bool // open
	}{
		{"ours", ourMasked, ourReadOnly, false, false},
		{"Podman's", podmanMasked, podmanReadOnly, false, true},
		{"no kcore", without(ourMasked, "/proc/kcore"), ourReadOnly, true, false},
		{"no keys", without(ourMasked, "/proc/keys"), ourReadOnly, true, false},
		{"no firmware", without(ourMasked, "/sys/firmware"), ourReadOnly, true, false},
		{"a writable /proc/sys", ourMasked, without(ourReadOnly, "/proc/sys"), true, false},
		{"a masked /proc/sys", append(slices.Clone(ourMasked), "/proc/sys"), without(ourReadOnly, "/proc/sys"), false, false},
		{"all of /proc and /sys", []string{"/proc", "/sys/"}, nil, false, false},
		{"interrupts", without(ourMasked, "/proc/interrupts"), ourReadOnly, false, true},
		{"power", without(ourMasked, "/sys/devices/virtual/powercap"), ourReadOnly, false, true},
		{"nothing", nil, nil, true, true},
	} {
		c := &Config{Masked: said(tt.masked), ReadOnly: said(tt.readOnly)}
		if a := checkPaths(c); a.verdict.Open() != tt.paths {
			t.Errorf("%s: proc.paths is %s: %s", tt.name, a.verdict, a.observed)
		}
		if a := checkLeaks(c); a.verdict.Open() != tt.leaks {
			t.Errorf("%s: proc.leaks is %s: %s", tt.name, a.verdict, a.observed)
		}
	}
	c := &Config{Masked: said(ourMasked), ReadOnly: said(ourReadOnly), Writable: []report.Evidence{{Call: "mounts[3]"}}}
	if a := checkPaths(c); !a.verdict.Open() {
		t.Error("a writable /sys is no door")
	}
	c.Writable, c.Cgroups = nil, c.Writable
	if a := checkPaths(c); !a.verdict.Open() || a.severity != report.Medium || !strings.Contains(a.enables, "limits") {
		t.Errorf("writable cgroups: %+v", a)
	}
	c.UserNS = said(Namespace{})
	if a := checkPaths(c); a.severity != report.Low {
		t.Errorf("writable cgroups in a user namespace: %+v", a)
	}
	c.Writable = c.Cgroups
	if a := checkPaths(c); a.severity != "" || a.enables != "" {
		t.Errorf("both: %+v", a)
	}
}

// TestWritableCgroups: which options mount the cgroups writable.
func TestWritableCgroups(t *testing.T) {
	for _, tt := range []struct {
		kind   Kind
		option string
		want   bool
	}{
		{Docker, "writable-cgroups=true", true}, {Docker, "writable-cgroups", true}, {Docker, "writable-cgroups=1", true},
		{Docker, "writable-cgroups=false", false}, {Docker, "writable-cgroup=true", false},
		{Podman, "unmask=/sys/fs/cgroup", true}, {Podman, "unmask=ALL", true}, {Podman, "unmask=/proc/acpi:/sys/fs/cgroup", true},
		{Podman, "unmask=/proc/asound", false},
	} {
		list, err := Parse(tt.kind, []byte(`{"HostConfig": {"Privileged": false, "SecurityOpt": ["`+tt.option+`"]},
			"Config": {"CreateCommand": ["podman", "run", "--security-opt", "`+tt.option+`", "x"]}}`), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(list[0].Cgroups) > 0; got != tt.want || len(list[0].Writable) > 0 {
			t.Errorf("%s with %s: cgroups are writable %v, /sys %v", tt.kind, tt.option, got, list[0].Writable)
		}
	}
}

// TestDeviceRules: which rules open what a host keeps to itself, whoever wrote them.
func TestDeviceRules(t *testing.T) {
	for rule, want := range map[string]bool{
		"a *:* rwm": true, "a": true, "b 8:* rwm": true, "b 8:0 r": true, "b *:* w": true, "b *:* m": false, "b 8:0 m": false,
		"c *:* rwm": true, "c *:* m": false, "c *:5 r": true, "c 1:* rw": true, "c 1:1 r": true, "c 1:2 w": true, "c 1:4 rw": true,
		"c 1:3 rwm": false, "c 1:5 rwm": false, "c 1:7 rwm": false, "c 1:8 rwm": false, "c 1:9 rwm": false, "c 5:0 rwm": false, "c 5:1 rwm": false,
		"c 5:2 rwm": false, "c 136:* rwm": false, "c 189:* rmw": false, "c 10:200 rwm": false, "c 81:*": false, "nonsense": true,
	} {
		if got := wideRule(rule); got != want {
			t.Errorf("%q: wide is %v, want %v", rule, got, want)
		}
	}
	const head = `{"ociVersion": "1.0.0", "linux": {"resources": {"devices": [{"allow": false, "access": "rwm"}, `
	for rules, want := range map[string]int{
		`{"allow": true, "type": "b", "major": 8, "access": "rwm"}`:                                                      1,
		`{"allow": true, "type": "b", "major": 8, "minor": 0, "access": "r"}`:                                            1,
		`{"allow": true, "type": "c", "access": "rwm"}`:                                                                  1,
		`{"allow": true, "type": "c", "major": -1, "minor": -1, "access": "rwm"}`:                                        1,
		`{"allow": true, "type": "c", "major": 1, "minor": 1, "access": "r"}`:                                            1,
		`{"allow": true, "access": "rwm"}`:                                                                               1,
		`{"allow": true, "type": "c", "access": "m"}, {"allow": true, "type": "b", "access": "m"}`:                       0,
		`{"allow": true, "type": "c", "major": 136, "access": "rwm"}`:                                                    0,
		`{"allow": true, "type": "b", "major": 8, "access": "rwm"}, {"allow": false, "type": "b", "access": "rwm"}`:      0,
		`{"allow": true, "type": "b", "major": 8, "access": "rwm"}, {"allow": false, "type": "b", "access": "w"}`:        1,
		`{"allow": true, "type": "b", "major": 8, "access": "rwm"}, {"allow": false, "major": 7}`:                        1,
		`{"allow": true, "type": "b", "access": "rw"}, {"allow": true, "access": "rwm"}, {"allow": false, "access": ""}`: 0,
	} {
		c, err := ParseOCI([]byte(head + rules + "]}}}"))
		if err != nil {
			t.Fatal(err)
		}
		if !c.DeviceRules.Known || len(c.DeviceRules.Value) != want {
			t.Errorf("%s: got %q, want %d", rules, c.DeviceRules.Value, want)
		}
	}
	c, err := ParseOCI([]byte(strings.Replace(head, `"rwm"}, `, `"m"}`, 1) + "]}}}"))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.DeviceRules.Value) != 1 {
		t.Errorf("only making nodes is denied: got %q", c.DeviceRules.Value)
	}
}

// TestPorts: ports are published into a network of the workload's own, and nowhere
// else.
func TestPorts(t *testing.T) {
	everywhere := said([]Port{{Port: "80/tcp"}})
	for _, tt := range []struct {
		name  string
		net   Said[Namespace]
		ports Said[[]Port]
		want  report.Verdict
	}{
		{"its own", said(Namespace{}), everywhere, report.Leaked},
		{"who knows", unsaid[Namespace](""), everywhere, report.Leaked},
		{"the host's", said(Namespace{Host: true}), everywhere, report.NotApplicable},
		{"another container's", said(Namespace{Of: "container x"}), everywhere, report.NotApplicable},
		{"the host's, and none", said(Namespace{Host: true}), said([]Port(nil)), report.Held},
		{"who knows which", said(Namespace{Host: true}), unsaid[[]Port](""), report.Unknown},
	} {
		if a := checkPorts(&Config{Kind: Docker, Net: tt.net, Ports: tt.ports}); a.verdict != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, a.verdict, tt.want)
		}
	}
}
