package ociruntime

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/runtimespec"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestKeepTmpReadOnly wants /tmp as read-only as the root, whatever the image has there.
func TestKeepTmpReadOnly(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(root string) error
		// writable and readOnly are the types of the mount there, "" for none.
		writable, readOnly string
	}{
		{"a directory", func(root string) error { return os.Mkdir(root+"/tmp", 0o755) }, "bind", "bind"},
		{"nothing", func(string) error { return nil }, "", "tmpfs"},
		{"a file", func(root string) error { return os.WriteFile(root+"/tmp", nil, 0o644) }, "", ""},
		{"a link to nothing", func(root string) error { return os.Symlink("/gone", root+"/tmp") }, "", "tmpfs"},
		{"a link to an empty directory", func(root string) error {
			return errors.Join(os.Mkdir(root+"/other", 0o755), os.Symlink("/other", root+"/tmp"))
		}, "", "tmpfs"},
		{"a link to a directory with content", func(root string) error {
			return errors.Join(os.MkdirAll(root+"/other/content", 0o755), os.Symlink("/other", root+"/tmp"))
		}, "", ""},
	} {
		dir := t.TempDir()
		if err := tt.make(dir); err != nil {
			t.Fatal(err)
		}
		root, err := os.Open(filepath.Clean(dir))
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		for readOnly, want := range map[bool]string{false: tt.writable, true: tt.readOnly} {
			spec := &specs.Spec{Root: &specs.Root{Readonly: readOnly}}
			keepTmp(spec, root)
			got := specs.Mount{}
			if len(spec.Mounts) > 0 {
				got = spec.Mounts[0]
			}
			if got.Type != want || want != "" && slices.Contains(got.Options, "ro") != readOnly {
				t.Errorf("%s, read-only %v: got %+v, want %q", tt.name, readOnly, got, want)
			}
		}
	}
	spec := &specs.Spec{Root: &specs.Root{Readonly: true}, Mounts: []specs.Mount{{Destination: "/tmp/", Type: "bind"}}}
	if keepTmp(spec, nil); len(spec.Mounts) != 1 {
		t.Errorf("with a mount of the workload's own: got %+v", spec.Mounts)
	}
}

// TestSeccompErrno wants of gVisor's filter the answers of the specification's.
func TestSeccompErrno(t *testing.T) {
	kernel, err := runtimespec.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	f, err := seccomp.Default(seccomp.Conditions{Kernel: kernel})
	if err != nil {
		t.Fatal(err)
	}
	if err := answers(f); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(f.Syscalls, func(s specs.LinuxSyscall) bool { return slices.Contains(s.Names, "clone3") })
	if i < 0 || f.Syscalls[i].Action != specs.ActTrace || f.DefaultAction != specs.ActErrno {
		t.Errorf("got clone3 %d in %+v", i, f)
	}
	errno := func(n uint) *uint { return &n }
	for _, tt := range []struct {
		action specs.LinuxSeccompAction
		errno  *uint
		want   specs.LinuxSeccompAction // "" refuses
	}{
		{specs.ActErrno, nil, specs.ActErrno},
		{specs.ActErrno, errno(uint(syscall.EPERM)), specs.ActErrno},
		{specs.ActErrno, errno(uint(syscall.ENOSYS)), specs.ActTrace},
		{specs.ActErrno, errno(0), ""},
		{specs.ActErrno, errno(uint(syscall.EACCES)), ""},
		{specs.ActAllow, nil, specs.ActAllow},
		{specs.ActKill, nil, specs.ActKill},
	} {
		rules := []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: tt.action, ErrnoRet: tt.errno}}
		rule := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: rules}
		whole := &specs.LinuxSeccomp{DefaultAction: tt.action, DefaultErrnoRet: tt.errno}
		if err := answers(rule); errors.Is(err, workload.ErrUnsupported) != (tt.want == "") || err == nil && rule.Syscalls[0].Action != tt.want {
			t.Errorf("%+v: got %v, %+v", tt, err, rule)
		}
		if err := answers(whole); errors.Is(err, workload.ErrUnsupported) != (tt.want == "") || err == nil && whole.DefaultAction != tt.want {
			t.Errorf("%+v as the default: got %v, %+v", tt, err, whole)
		}
		if rules[0].Action != tt.action {
			t.Error("the caller's rules were changed")
		}
	}
	if err := answers(nil); err != nil {
		t.Errorf("no filter: %v", err)
	}
}
