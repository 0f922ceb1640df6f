package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestAccountBeyondIDs: an ID of more than 32 bits in an image's account files is not
// cut off, which makes 4294967296 root.
func TestAccountBeyondIDs(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"passwd": "user:x:4294967296:100::/:/bin/sh\ngroup:x:1:4294967296::/:/bin/sh\nmember:x:2:100::/:/bin/sh\nlast:x:4294967294:4294967294::/:/bin/sh\n",
		"group":  "wheel:x:4294967296:member\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, who := range []string{"user", "group", "member"} {
		p := &specs.Process{}
		if err := Account(root, p, who); err == nil || !strings.Contains(err.Error(), "have the ID 4294967296") {
			t.Errorf("%s: got %+v, %v, want the ID refused", who, p.User, err)
		}
	}
	p := &specs.Process{}
	if err := Account(root, p, "last"); err != nil || p.User.UID != 4294967294 || p.User.GID != 4294967294 {
		t.Errorf("last: got %+v, %v", p.User, err)
	}
}
