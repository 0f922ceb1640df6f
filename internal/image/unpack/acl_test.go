package unpack_test

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/image/imagetest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
)

func TestTextACL(t *testing.T) {
	getfacl, err := exec.LookPath("getfacl")
	if err != nil {
		t.Skip("getfacl is not installed (Debian: apt-get install acl)")
	}
	layer := func(text string) []byte {
		f := imagetest.File("f", "x").With(0o674, 0, 0)
		f.PAXRecords = map[string]string{"SCHILY.acl.access": text}
		return imagetest.Tar(t, f)
	}
	want := "user::rw-\nuser:1000:r-x\nuser:1001:rwx\ngroup::---\ngroup:7:r--\nmask::rwx\nother::r--"
	for _, text := range []string{
		"user::rw-,user:1001:rwx,user:1000:r-x,group::---,group:7:r--,mask::rwx,other::r--",
		"user::rw-\nuser:ann:rwx:1001\nuser:bob:r-x:1000\ngroup::---\ngroup:lp:r--:7\nmask::rwx\nother::r--\n",
	} {
		root, _ := jail(t)
		if _, err := unpack.Layer(context.Background(), root, bytes.NewReader(layer(text)), unpack.Options{}); err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		out, err := exec.Command(getfacl, "--omit-header", "--numeric", "--absolute-names", root.Name()+"/f").CombinedOutput()
		if got := strings.TrimSpace(string(out)); got != want || err != nil {
			t.Errorf("%q: got\n%s\nwant\n%s (%v)", text, got, want, err)
		}
	}
	for _, text := range []string{"user:ann:rwx", "x", "user::rwz", "mask:1:rwx", "user:99999999999:rwx", "king::rwx"} {
		root, _ := jail(t)
		if _, err := unpack.Layer(context.Background(), root, bytes.NewReader(layer(text)), unpack.Options{}); !errors.Is(err, unpack.ErrHostile) {
			t.Errorf("%q: got %v, want ErrHostile", text, err)
		}
	}
}
