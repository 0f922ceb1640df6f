package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// What is read and written at a time.
const (
	diskBytes = 128 << 20
	diskImage = "localhost/bulkhead-bench:disk"
	diskFile  = "/srv/file"
)

// diskArchive writes the image whose file is read.
func diskArchive(path, rootfs string) error {
	base, err := tarTree(rootfs)
	if err != nil {
		return err
	}
	content := make([]byte, diskBytes)
	rand.NewChaCha8([32]byte{2}).Read(content)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h := &tar.Header{Name: strings.TrimPrefix(diskFile, "/"), Mode: 0o644, Size: diskBytes, ModTime: time.Unix(1_700_000_000, 0), Format: tar.FormatPAX}
	if err := errors.Join(w.WriteHeader(h), second(w.Write(content)), w.Close()); err != nil {
		return err
	}
	return writeArchive(path, diskImage, [][]byte{base, b.Bytes()})
}

func second(_ int, err error) error { return err }

// Commands of busybox that tell how long they took, in hundredths of a second:
// this dd does not tell itself. Reading passes over the guest's own cache,
// writing ends when the data is on the disk.
const timed = busybox + " time -p " + busybox + " "

func ddRead(file string) string {
	return fmt.Sprintf(timed+"dd if=%s of=/dev/null bs=1M count=%d iflag=direct", file, diskBytes>>20)
}

func ddWrite(file string) string {
	return fmt.Sprintf(timed+"dd if=/dev/zero of=%s bs=1M count=%d conv=fsync", file, diskBytes>>20)
}

// elapsed finds the time in what time -p writes.
var elapsed = regexp.MustCompile(`(?m)^real ([0-9.]+)\r?$`)

func ddTime(out string) (time.Duration, error) {
	m := elapsed.FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("no time was told: %s", lastLine([]byte(out)))
	}
	s, err := strconv.ParseFloat(m[1], 64)
	if err != nil || s <= 0 {
		return 0, fmt.Errorf("the time told is %q", m[1])
	}
	return time.Duration(s * float64(time.Second)), nil
}

// diskCases read and write a file in a workload, each where it lies: image,
// writable disk, volume.
func (f *field) diskCases() []testcase {
	const times = "The time of dd alone, by the clock inside, in steps of 10 ms. "
	var volume = filepath.Join(f.dir, "volume")
	image := f.diskCase("vm-image", "Virtual machine: read a file of the image", times+
		"128 MiB in pieces of 1 MiB, past the guest's page cache; the host's holds the image. QEMU by hand reads a raw file as a disk.",
		ddRead(diskFile), "", ddRead("/dev/vda"))
	write := f.diskCase("vm-disk", "Virtual machine: write a file to the writable disk", times+
		"128 MiB in pieces of 1 MiB and one fsync, through overlay and ext4. QEMU by hand writes to a raw file as a disk, with no file system.",
		ddWrite("/srv/new"), "", ddWrite("/dev/vda"))
	in := f.diskCase("vm-volume-read", "Virtual machine: read a file of a volume", times+
		"128 MiB in pieces of 1 MiB, past the guest's page cache.", ddRead("/volume/file"), volume, "")
	out := f.diskCase("vm-volume-write", "Virtual machine: write a file to a volume", times+
		"128 MiB in pieces of 1 MiB and one fsync.", ddWrite("/volume/new"), volume, "")
	return []testcase{image, write, in, out}
}

// diskCase lets one workload of each boundary run dd again and again; by hand,
// a machine is booted for each.
func (f *field) diskCase(name, title, about, dd, volume, hand string) testcase {
	c := testcase{name: name, title: title, about: about, share: 6, bytes: diskBytes}
	archive := filepath.Join(f.dir, "disk.tar")
	made := sync.OnceValue(func() error {
		if volume != "" {
			if err := makeVolume(volume); err != nil {
				return err
			}
		}
		if _, err := os.Stat(archive); err == nil {
			return nil
		}
		return diskArchive(archive, f.rootfs)
	})
	all := make([]engine, 0, len(f.guests)+1)
	for _, g := range f.guests {
		all = append(all, g.engine)
	}
	if e, ok := f.plain(); ok {
		all = append(all, e)
	}
	for i, e := range all {
		c.contenders = append(c.contenders, e.diskContender(fmt.Sprintf("bulkhead-bench-%s%d", name, i), archive, volume, dd, made))
	}
	if hand == "" {
		return c
	}
	for _, g := range f.guests {
		h := byHand{guest: g, dir: f.dir, script: hand + " 2>&1", disks: []string{filepath.Join(f.dir, "by-hand.disk")}}
		c.contenders = append(c.contenders, h.diskContender())
	}
	return c
}

// makeVolume makes a directory that the workload's root may write to.
func makeVolume(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "file"), make([]byte, diskBytes), 0o644)
}

func (e engine) diskContender(name, archive, volume, dd string, made func() error) contender {
	return contender{
		label: e.label,
		setup: func(ctx context.Context) error {
			if err := made(); err != nil {
				return err
			}
			load := e.cmd(append(append([]string{}, e.loading...), archive)...)
			start := append(e.cmd("run", "-d", "--pull", "never", "--network", "none", "--name", name), e.running...)
			if volume != "" {
				start = append(start, "-v", volume+":/volume")
			}
			return runner(command).all(ctx, load, append(start, diskImage, "/bin/sleep", "3600"))
		},
		teardown: func(ctx context.Context) error { return e.remove(ctx, name) },
		timed: func(ctx context.Context) (time.Duration, error) {
			out, err := command(ctx, e.cmd("exec", name, "/bin/sh", "-c", dd+" 2>&1")...)
			if err != nil {
				return 0, err
			}
			return ddTime(out)
		},
	}
}

// diskContender borrows the drivers of a Bulkhead guest, whose initramfs it
// finds by running one.
func (h byHand) diskContender() contender {
	return contender{
		label: h.label(),
		setup: func(ctx context.Context) error {
			const name = "bulkhead-bench-initramfs"
			if err := os.WriteFile(h.disks[0], make([]byte, diskBytes), 0o600); err != nil {
				return err
			}
			if _, err := h.engine.idle(ctx, name); err != nil {
				return err
			}
			path, err := command(ctx, h.engine.cmd("inspect", "--format", "{{.Machine.Initramfs}}", name)...)
			if err = errors.Join(err, h.engine.remove(ctx, name)); err != nil {
				return err
			}
			return h.makeInitramfs(strings.TrimSpace(path))
		},
		timed: func(ctx context.Context) (time.Duration, error) {
			out, err := command(ctx, h.command()...)
			if err != nil {
				return 0, err
			}
			return ddTime(out)
		},
	}
}
