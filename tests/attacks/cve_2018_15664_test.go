package attacks

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// CVE-2018-15664: `docker cp` resolved a path of the container, and used the
// result a moment later. A container that swapped a directory for a link in
// between was read from, and written to, at any path of the host, by root.
//
// What prevents it here: a path is resolved by one openat2(2) with the
// container's root as its root, held by a descriptor, and what is found is not
// looked up by name again. What is unpacked goes by descriptors of directories
// that no link was followed to.
//
// Kernel facts: RESOLVE_IN_ROOT holds against renames too (EAGAIN, and the walk
// is done again); *at calls with one name and O_NOFOLLOW follow nothing.

func TestCopyRace(t *testing.T) {
	c := newCLI(t)
	host := filepath.Join(c.dir, "host")
	if err := os.MkdirAll(host, 0o755); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(host, "flag")
	mine := filepath.Join(c.dir, "mine")
	for name, text := range map[string]string{secret: "of the host", mine: "planted"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// Inside, "d" is now a directory and now a link to the host's, by its name on
	// the host, which means nothing inside.
	racer := `cd /race && mkdir real && echo inside >real/flag && ln -s ` + host + ` link
while :; do mv -T real d; mv -T d real; mv -T link d; mv -T d link; done 2>/dev/null`
	id := c.run(t, "run", "-d", "attacker", "/bin/sh", "-c", "mkdir /race && "+racer)
	defer c.run(t, "rm", "-f", id)
	waitFor(t, "the race", func() bool {
		_, err := c.try(t, "cp", id+":/race/real", "-")
		_, link := c.try(t, "cp", id+":/race/link", "-")
		return err == nil || link == nil
	})
	inside, failed := 0, 0
	for range 30 {
		out, err := c.try(t, "cp", id+":/race/d/flag", "-")
		switch {
		case strings.Contains(out, "of the host"):
			t.Fatal("a file of the host was copied out")
		case err != nil:
			failed++
		case strings.Contains(out, "inside"):
			inside++
		}
		if out, _ = c.try(t, "cp", id+":/race", "-"); strings.Contains(out, "of the host") {
			t.Fatal("a file of the host was copied out with its directory")
		}
		c.try(t, "cp", mine, id+":/race/d/planted")
		c.try(t, "cp", mine, id+":/race/d")
	}
	t.Logf("read inside %d times, failed %d times", inside, failed)
	if failed == 0 {
		t.Error("no copy met the racer: this was no race")
	}
	entries, err := os.ReadDir(host)
	if err != nil || len(entries) != 1 {
		t.Errorf("on the host: %v, %v", entries, err)
	}
	if b, err := os.ReadFile(secret); err != nil || string(b) != "of the host" {
		t.Errorf("the host's file: %q, %v", b, err)
	}
	// The negative control: by the host's names the link does lead there.
	if err := os.Symlink(host, filepath.Join(c.dir, "link")); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(c.dir, "link", "flag")); err != nil || string(b) != "of the host" {
		t.Errorf("without a root of its own: %q, %v", b, err)
	}
}
