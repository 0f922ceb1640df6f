package initramfs

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/u-root/u-root/pkg/cpio"
)

func write(t *testing.T, agent string, modules []Module) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, []Program{{"init", strings.NewReader(agent), int64(len(agent))}}, modules); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The modules b and a have the same content: they must not become hard links.
var modules = []Module{{"b", []byte("content"), false}, {"net", []byte("n"), true}, {"a", []byte("content"), false}, {"empty", nil, false}}

func TestWrite(t *testing.T) {
	archive := write(t, "the agent", modules)
	if again := write(t, "the agent", modules); !bytes.Equal(archive, again) {
		t.Error("the same content gives other bytes")
	}
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(archive)))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	inodes := map[uint64]bool{}
	for _, r := range records {
		content := ""
		if r.ReaderAt != nil {
			raw, err := io.ReadAll(io.NewSectionReader(r, 0, int64(r.FileSize)))
			if err != nil {
				t.Fatal(err)
			}
			content = string(raw)
		}
		if inodes[r.Ino] || r.UID != 0 || r.GID != 0 || r.MTime != 0 {
			t.Errorf("%s: %+v", r.Name, r.Info)
		}
		inodes[r.Ino] = true
		got = append(got, fmt.Sprintf("%s %o %q", r.Name, r.Mode, content))
	}
	want := []string{
		`bin 40755 ""`, `dev 40755 ""`, `modules 40755 ""`, `proc 40755 ""`, `root 40755 ""`, `run 40755 ""`, `sys 40755 ""`, `tmp 40755 ""`,
		`dev/console 20600 ""`, `init 100755 "the agent"`,
		`modules/b.ko 100444 "content"`, `modules/net.ko 100444 "n"`, `modules/a.ko 100444 "content"`, `modules/empty.ko 100444 ""`,
		`modules/order 100444 "/modules/b.ko\n/modules/a.ko\n/modules/empty.ko\n"`,
		`modules/network 100444 "/modules/net.ko\n"`,
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Error(diff)
	}
}

func TestWithoutAgent(t *testing.T) {
	if err := Write(io.Discard, []Program{{"init", strings.NewReader(""), 0}}, nil); err == nil {
		t.Error("an empty agent was taken")
	}
	// The file shrank after it was measured.
	if err := Write(io.Discard, []Program{{"init", strings.NewReader("ab"), 3}}, nil); err == nil {
		t.Error("an agent that was cut off was taken")
	}
}
