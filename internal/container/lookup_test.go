package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// accounts is a root directory with account files.
func accounts(t *testing.T, passwd, group string) *os.File {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"passwd": passwd, "group": group} {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// TestAccountBeyondIDs: an ID of more than 32 bits in an image's account files is not
// cut off, which makes 4294967296 root.
func TestAccountBeyondIDs(t *testing.T) {
	root := accounts(t, "user:x:4294967296:100::/:/bin/sh\ngroup:x:1:4294967296::/:/bin/sh\nmember:x:2:100::/:/bin/sh\nlast:x:4294967294:4294967294::/:/bin/sh\n",
		"wheel:x:4294967296:member\n")
	for _, who := range []string{"user", "group", "member"} {
		p := &specs.Process{}
		if err := Account(root, &specs.Linux{}, p, who); err == nil || !strings.Contains(err.Error(), "have the ID 4294967296") {
			t.Errorf("%s: got %+v, %v, want the ID refused", who, p.User, err)
		}
	}
	p := &specs.Process{}
	if err := Account(root, &specs.Linux{}, p, "last"); err != nil || p.User.UID != 4294967294 || p.User.GID != 4294967294 {
		t.Errorf("last: got %+v, %v", p.User, err)
	}
}

// TestAccountOutside: IDs that the user namespace does not have are another's on the
// host.
func TestAccountOutside(t *testing.T) {
	root := accounts(t, "far:x:70000:0::/:/bin/sh\nmember:x:1:0::/:/bin/sh\n", "wheel:x:70001:member\n")
	ids := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	l := &specs.Linux{UIDMappings: ids, GIDMappings: ids}
	for who, want := range map[string]string{
		"65536": "user ID 65536", "0:65536": "group ID 65536", "far": "user ID 70000", "member": "group ID 70001",
	} {
		p := &specs.Process{}
		if err := Account(root, l, p, who); err == nil || !strings.Contains(err.Error(), want+" is outside the ID range") {
			t.Errorf("%s: got %+v, %v", who, p.User, err)
		}
	}
	p := &specs.Process{User: specs.User{AdditionalGids: []uint32{65536}}}
	if err := Account(root, l, p, "0"); err == nil {
		t.Errorf("an additional group: got %+v", p.User)
	}
	p = &specs.Process{}
	if err := Account(root, l, p, "65535:65535"); err != nil || p.User.UID != 65535 {
		t.Errorf("the last: got %+v, %v", p.User, err)
	}
}
