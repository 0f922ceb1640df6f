package runspec

import (
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/seed-f5e3b97b/bulkhead/internal/volume"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func TestParseVolume(t *testing.T) {
	bind := func(m workload.Mount) workload.Mount {
		m.Type, m.CreateSource = "bind", true
		return m
	}
	for _, tt := range []struct {
		in      string
		selinux bool
		want    workload.Mount
		err     string // part of the sentence
	}{
		{in: "/a:/b", want: bind(workload.Mount{Source: "/a", Target: "/b", Recursive: true})},
		{in: "/a:/b:ro", want: bind(workload.Mount{Source: "/a", Target: "/b", Recursive: true, ReadOnly: true})},
		{in: "/a:/b:ro,z", want: bind(workload.Mount{Source: "/a", Target: "/b", Recursive: true, ReadOnly: true})},
		{in: "/a:/b:rw,rslave,noexec,bind", want: bind(workload.Mount{Source: "/a", Target: "/b", Propagation: "rslave", NoExec: true})},
		{in: "/a/../c//:/b/./d/", want: bind(workload.Mount{Source: "/c", Target: "/b/d", Recursive: true})},
		{in: "./x:/b", want: bind(workload.Mount{Source: "/work dir/x", Target: "/b", Recursive: true})},
		{in: ".:/b", want: bind(workload.Mount{Source: "/work dir", Target: "/b", Recursive: true})},
		{in: "..:/b", want: bind(workload.Mount{Source: "/", Target: "/b", Recursive: true})},
		{in: "/a:/b:Z", selinux: true, err: "SELinux labels"},
		{in: "data:/b", want: workload.Mount{Type: "volume", Source: "data", Target: "/b"}},
		{in: "d_1.x-y:/b/../c:ro,nocopy,noexec,z", want: workload.Mount{Type: "volume", Source: "d_1.x-y", Target: "/c", ReadOnly: true, NoCopy: true, NoExec: true}},
		{in: "data:/b:copy", want: workload.Mount{Type: "volume", Source: "data", Target: "/b"}},
		{in: "/data", want: workload.Mount{Type: "volume", Target: "/data"}},
		{in: "", err: "not an absolute path"}, {in: "data", err: "not an absolute path"}, {in: "/", err: "root directory"},
		{in: "da ta:/b", err: "neither a path nor a volume's name"}, {in: "-data:/b", err: "neither a path"},
		{in: "a/../../b:/b", err: "neither a path"}, {in: "~:/b", err: "neither a path"}, {in: strings.Repeat("a", 201) + ":/b", err: "neither a path"},
		{in: "data:/b:rslave", err: "nothing is mounted below a volume"}, {in: "data:/b:rbind", err: "nothing is mounted below a volume"},
		{in: "data:/b:copy,nocopy", err: "exclude each other"},
		{in: ":", err: "empty"}, {in: ":/b", err: "empty"}, {in: "/a:", err: "empty"}, {in: "::", err: "empty"},
		{in: "/a:b", err: "not an absolute path"},
		{in: "/a:/", err: "root directory"}, {in: "/a:/x/..", err: "root directory"},
		{in: "/a:/proc", err: "/proc"}, {in: "/a:/x/../proc/sys", err: "/proc"},
		{in: "/a:/b:", err: "unknown option"}, {in: "/a:/b:ro,", err: "unknown option"},
		{in: "/a:/b:rro", err: "unknown option"}, {in: "/a:/b:RO", err: "unknown option"},
		{in: "/a:/b:ro,rw", err: "exclude each other"}, {in: "/a:/b:ro,ro", err: "exclude each other"},
		{in: "/a:/b:shared,private", err: "exclude each other"}, {in: "/a:/b:z,Z", err: "exclude each other"},
		{in: "/a:/b:U", err: "not available"}, {in: "/a:/b:nocopy", err: "nothing is copied into a host directory"},
		{in: "/a:/b:ro:rw", err: "too many colons"},
		{in: "/a\x00:/b", err: "zero byte"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			host := testHost()
			host.SELinux = tt.selinux
			got, err := ParseVolume(host, tt.in)
			checkParse(t, got, err, tt.want, tt.err)
		})
	}
}

func TestParseMount(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want workload.Mount
		err  string
	}{
		{in: "type=bind,src=/a,dst=/b", want: workload.Mount{Type: "bind", Source: "/a", Target: "/b", Recursive: true}},
		{in: "type=bind,source=/a,target=/b,readonly", want: workload.Mount{Type: "bind", Source: "/a", Target: "/b", Recursive: true, ReadOnly: true}},
		{in: "destination=/b,TYPE=bind,src=rel,ro=true", want: workload.Mount{Type: "bind", Source: "/work dir/rel", Target: "/b", Recursive: true, ReadOnly: true}},
		{in: "type=bind,src=/a,dst=/b,ro=0,bind-nonrecursive", want: workload.Mount{Type: "bind", Source: "/a", Target: "/b"}},
		{in: "type=bind,src=/a,dst=/b,bind-recursive=disabled", want: workload.Mount{Type: "bind", Source: "/a", Target: "/b"}},
		{in: "type=bind,src=/a,dst=/b,bind-propagation=rshared,consistency=cached", want: workload.Mount{Type: "bind", Source: "/a", Target: "/b", Recursive: true, Propagation: "rshared"}},
		{in: `type=bind,"src=/a,b",dst=/b`, want: workload.Mount{Type: "bind", Source: "/a,b", Target: "/b", Recursive: true}},
		{in: "type=tmpfs,dst=/b,tmpfs-size=1m,tmpfs-mode=0700,noexec", want: workload.Mount{Type: "tmpfs", Target: "/b", TmpfsSize: 1 << 20, TmpfsMode: 0o700, NoExec: true}},
		{in: "type=tmpfs,dst=/b,ro", want: workload.Mount{Type: "tmpfs", Target: "/b", ReadOnly: true, NoExec: true}},
		{in: "noexec=false,type=tmpfs,dst=/b", want: workload.Mount{Type: "tmpfs", Target: "/b"}},
		{in: "type=bind,src=/a,dst=/b,bind-recursive=readonly,ro", want: workload.Mount{Type: "bind", Source: "/a", Target: "/b", Recursive: true, ReadOnly: true}},
		{in: "type=bind,src=/a,dst=/b,bind-recursive=readonly", err: "nothing read-only"},
		{in: "type=bind,src=/a,dst=/b,ro=false,bind-recursive=readonly", err: "nothing read-only"},
		{in: "type=bind,src=/a,dst=/b,bind-nonrecursive=false,bind-recursive=disabled", err: "exclude each other"},
		{in: "", err: "badly quoted"}, {in: `type=bind,"src=/a`, err: "badly quoted"},
		{in: "src=v,dst=/b", want: workload.Mount{Type: "volume", Source: "v", Target: "/b"}},
		{in: "type=volume,dst=/b", want: workload.Mount{Type: "volume", Target: "/b"}},
		{in: "type=volume,src=v,dst=/b,ro,volume-nocopy,volume-driver=local", want: workload.Mount{Type: "volume", Source: "v", Target: "/b", ReadOnly: true, NoCopy: true}},
		{in: "type=volume,src=v,dst=/b,volume-nocopy=false", want: workload.Mount{Type: "volume", Source: "v", Target: "/b"}},
		{in: "src=/a,dst=/b", err: "not a volume's name"}, {in: "src=../a,dst=/b", err: "not a volume's name"},
		{in: "src=v,dst=/b,volume-driver=nfs", err: "driver \"nfs\" is not available"}, {in: "src=v,dst=/b,volume-nocopy=x", err: "neither true nor false"},
		{in: "src=v,dst=/b,volume-opt=type=nfs", err: "volume-opt"}, {in: "src=v,dst=/b,volume-subpath=x", err: "volume-subpath"},
		{in: "src=v,dst=/b,volume-label=a=b", err: "volume-label"}, {in: "src=v,dst=/b,tmpfs-size=1m", err: "option of type=tmpfs"},
		{in: "src=v,dst=/b,bind-propagation=slave", err: "option of type=bind"}, {in: "type=bind,src=/a,dst=/b,volume-nocopy", err: "option of type=volume"},
		{in: "type=nfs,dst=/b", err: "unknown type"},
		{in: "type=bind,src=/a", err: "target is missing"}, {in: "type=bind,dst=/b", err: "source is missing"},
		{in: "type=bind,src=/missing,dst=/b", err: "/missing does not exist"},
		{in: "type=bind,src=/a,dst=b", err: "not an absolute path"}, {in: "type=bind,src=/a,dst=/", err: "root directory"},
		{in: "type=bind,src=/a,src=/b,dst=/c", err: "twice"}, {in: "type=bind,src=/a,source=/b,dst=/c", err: "twice"},
		{in: "type=bind,src=/a,dst=/b,readonly=maybe", err: "neither true nor false"},
		{in: "type=bind,src=/a,dst=/b,size=1", err: "unknown key"}, {in: "type=bind,src=,dst=/b", err: "no value"},
		{in: "type=bind,src=/a,dst=/b,bind-propagation=x", err: "bind-propagation"},
		{in: "type=bind,src=/a,dst=/b,bind-recursive=writable", err: "bind-recursive"},
		{in: "type=bind,src=/a,dst=/b,tmpfs-size=1", err: "option of type=tmpfs"},
		{in: "type=tmpfs,src=/a,dst=/b", err: "no source"}, {in: "type=tmpfs,dst=/b,bind-propagation=slave", err: "option of type=bind"},
		{in: "type=tmpfs,dst=/b,tmpfs-size=-1", err: "negative"}, {in: "type=tmpfs,dst=/b,tmpfs-mode=9", err: "octal"},
		{in: "type=tmpfs,dst=/b,tmpfs-mode=0", err: "mode 0"},
		{in: "type=bind,src=/a,dst=/b\ntype=tmpfs", err: "line break"}, {in: "type=bind,src=/a\x00,dst=/b", err: "zero byte"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			got, err := ParseMount(testHost(), tt.in)
			checkParse(t, got, err, tt.want, tt.err)
		})
	}
}

func TestParseTmpfs(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want workload.Mount
		err  string
	}{
		{in: "/run", want: workload.Mount{Type: "tmpfs", Target: "/run", NoExec: true}},
		{in: "/run:rw,exec,nosuid,nodev,size=64m,mode=755", want: workload.Mount{Type: "tmpfs", Target: "/run", TmpfsSize: 64 << 20, TmpfsMode: 0o755}},
		{in: "/run:ro,exec,noexec", want: workload.Mount{Type: "tmpfs", Target: "/run", ReadOnly: true, NoExec: true}},
		{in: "", err: "not an absolute path"}, {in: "run", err: "not an absolute path"}, {in: "/", err: "root directory"},
		{in: "/proc/x", err: "/proc"}, {in: "/run:", err: "option"}, {in: "/run:suid", err: "option"},
		{in: "/run:uid=1000", err: "option"}, {in: "/run:size=", err: "not a size"}, {in: "/run:mode=8", err: "octal"},
		{in: "/run:mode=17777", err: "octal"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			got, err := ParseTmpfs(tt.in)
			checkParse(t, got, err, tt.want, tt.err)
		})
	}
}

// checkParse compares a parsed value or the sentence of an error.
func checkParse[T any](t *testing.T, got T, err error, want T, wantErr string) {
	t.Helper()
	if wantErr != "" {
		if err == nil || !strings.Contains(err.Error(), wantErr) {
			t.Errorf("error %v, want one with %q", err, wantErr)
		}
		return
	}
	if err != nil {
		t.Errorf("error %v", err)
	} else if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// checkMount holds what every accepted mount must fulfil.
func checkMount(t *testing.T, in string, m workload.Mount) {
	t.Helper()
	if !path.IsAbs(m.Target) || path.Clean(m.Target) != m.Target || m.Target == "/" || strings.HasPrefix(m.Target+"/", "/proc/") {
		t.Errorf("%q: target %q", in, m.Target)
	}
	if m.Type == "bind" && (!path.IsAbs(m.Source) || path.Clean(m.Source) != m.Source) {
		t.Errorf("%q: source %q", in, m.Source)
	}
	if m.Type == "volume" && m.Source != "" && volume.CheckName(m.Source) != nil {
		t.Errorf("%q: volume %q", in, m.Source)
	}
	if m.Type != "bind" && m.Type != "tmpfs" && m.Type != "volume" || m.Type == "tmpfs" && m.Source != "" {
		t.Errorf("%q: %+v", in, m)
	}
	if m.Propagation != "" && !slices.Contains(propagations, m.Propagation) {
		t.Errorf("%q: propagation %q", in, m.Propagation)
	}
	if strings.ContainsRune(m.Source+m.Target, 0) || m.TmpfsSize < 0 || m.TmpfsMode > 0o7777 {
		t.Errorf("%q: %+v", in, m)
	}
}

func FuzzParseVolume(f *testing.F) {
	for _, s := range []string{"/a:/b:ro,z", "./a:/b", "v:/b", "::", "/a:/proc/..:rshared", "/a:/b:ro,rw", "a\x00:/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if m, err := ParseVolume(testHost(), s); err == nil {
			checkMount(t, s, m)
		}
	})
}

func FuzzParseMount(f *testing.F) {
	for _, s := range []string{"type=bind,src=/a,dst=/b,ro", `type=tmpfs,"dst=/b,c",tmpfs-size=1m`, "type=tmpfs,dst=/x,tmpfs-mode=7", `"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host := testHost()
		host.Stat = func(string) (fs.FileInfo, error) { return nil, nil }
		if m, err := ParseMount(host, s); err == nil {
			checkMount(t, s, m)
		}
	})
}

func FuzzParseTmpfs(f *testing.F) {
	f.Add("/run:size=1m,mode=1777,exec")
	f.Fuzz(func(t *testing.T, s string) {
		if m, err := ParseTmpfs(s); err == nil {
			checkMount(t, s, m)
		}
	})
}
