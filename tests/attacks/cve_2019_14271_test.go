package attacks

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// CVE-2019-14271: `docker cp` started a helper that entered the container's root
// and then loaded a library to look up names of users: the container's own
// libnss, which ran as root of the host.
//
// What prevents it here: nobody enters the container's root. Its files are
// reached by descriptor from outside, by static programs that load nothing, and
// users are numbers.
//
// The second half is the reverse: what a hostile workload sends as an archive is
// unpacked below the name that was asked for, without devices and setuid bits.

func TestCopyLoadsNothing(t *testing.T) {
	c := newCLI(t)
	proof := filepath.Join(c.dir, "proof")
	// Whatever a C library would read or load of the root is a FIFO, which whoever
	// opens it hangs at, or a program that leaves a proof.
	setUp := `mkdir -p /lib /lib64 /etc /usr/lib /data && echo text >/data/file
for f in /etc/nsswitch.conf /etc/ld.so.preload /etc/ld.so.cache /lib/libnss_files.so.2 /lib64/libnss_files.so.2 /usr/lib/libnss_files.so.2 /etc/localtime; do
	rm -f $f; mkfifo $f; done
rm -f /etc/passwd /etc/group; mkfifo /etc/passwd /etc/group
printf '#!/bin/sh\necho run >` + proof + `\n' >/data/tar; chmod 755 /data/tar; for p in /bin/tar /usr/bin/tar /bin/gzip; do mkdir -p $(dirname $p); rm -f $p; ln -s /data/tar $p; done
echo ready; exec sleep 600`
	id := c.run(t, "run", "-d", "attacker", "/bin/sh", "-c", setUp)
	defer c.run(t, "rm", "-f", id)
	waitFor(t, "the trap", func() bool {
		out, err := c.try(t, "logs", id)
		return err == nil && strings.Contains(out, "ready")
	})
	out := filepath.Join(c.dir, "out")
	c.run(t, "cp", "-a", id+":/data", out)
	if b, err := os.ReadFile(filepath.Join(out, "file")); err != nil || string(b) != "text\n" {
		t.Errorf("copied %q, %v", b, err)
	}
	c.run(t, "cp", filepath.Join(out, "file"), id+":/data/back")
	// Special files are described, not opened.
	archive, err := c.try(t, "cp", id+":/etc", "-")
	if err != nil {
		t.Fatal(err)
	}
	fifos := 0
	for r := tar.NewReader(bytes.NewReader([]byte(archive))); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeFifo {
			fifos++
		}
	}
	if fifos < 4 {
		t.Errorf("%d FIFOs in the archive", fifos)
	}
	if _, err := os.Lstat(proof); err == nil {
		t.Error("a program of the container was executed on the host")
	}
}

// TestCopiedSetuid copies a setuid program out, as a user would who looks at
// what a workload left.
func TestCopiedSetuid(t *testing.T) {
	c := newCLI(t)
	id := c.run(t, "run", "-d", "attacker", "/bin/sh", "-c", "cp /bin/busybox /mine; chmod 6755 /mine; echo ready; exec sleep 600")
	defer c.run(t, "rm", "-f", id)
	waitFor(t, "the program", func() bool {
		out, err := c.try(t, "logs", id)
		return err == nil && strings.Contains(out, "ready")
	})
	out := filepath.Join(c.dir, "mine")
	c.run(t, "cp", id+":/mine", out)
	fi, err := os.Lstat(out)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode() != 0o755 {
		t.Errorf("copied with mode %v", fi.Mode())
	}
	kept := filepath.Join(c.dir, "kept")
	c.run(t, "cp", "-a", id+":/mine", kept) // the negative control
	if fi, err := os.Lstat(kept); err != nil || fi.Mode() != 0o755|os.ModeSetuid|os.ModeSetgid {
		t.Errorf("with -a: %v, %v", fi.Mode(), err)
	}
}
