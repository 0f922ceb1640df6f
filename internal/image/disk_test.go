package image_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/erofs"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/imagetest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"golang.org/x/sys/unix"
)

func disk(tb testing.TB, s *image.Store, im image.Image) (image.Disk, func()) {
	tb.Helper()
	d, release, err := s.Disk(context.Background(), workload.Image{Digest: im.Digest.String()}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return d, release
}

func mountDisk(t *testing.T, d image.Disk) string {
	t.Helper()
	dir := t.TempDir()
	err := unix.Mount(d.Path, dir, "erofs", unix.MS_RDONLY, "")
	if errors.Is(err, unix.ENODEV) {
		t.Skip("this kernel has no EROFS")
	}
	if errors.Is(err, unix.ENOTBLK) { // before Linux 6.12
		var out []byte
		if out, err = exec.Command("mount", "-t", "erofs", "-o", "ro,loop", d.Path, dir).CombinedOutput(); err != nil {
			t.Skipf("cannot mount EROFS from a file: %s", out)
		}
	}
	if err != nil {
		t.Fatalf("mount the disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestDiskEqualsLayers compares the disk with what a container sees, for an
// image that needs its directories mended as well.
func TestDiskEqualsLayers(t *testing.T) {
	needRoot(t)
	s := openStore(t)
	implied := imagetest.New(t, manifest.RunConfig{},
		imagetest.Tar(t, imagetest.Dir(".", 0o711), imagetest.Dir("tmp", 0o1777), imagetest.Dir("usr", 0o755), imagetest.Dir("usr/lib", 0o705),
			imagetest.File("usr/lib/a", "a"), imagetest.Symlink("lib", "usr/lib")),
		imagetest.Tar(t, imagetest.File("tmp/x", "x"), imagetest.File("lib/b", "b"), imagetest.File("usr/lib/.wh.a", "")),
		imagetest.Tar(t, imagetest.File("y", "y")),
	)
	for name, im := range map[string]*imagetest.Image{"layered": layered(t), "implied": implied} {
		t.Run(name, func(t *testing.T) {
			stored := load(t, s, im, name)
			d, release := disk(t, s, stored)
			defer release()
			compare(t, describe(t, mount(t, s, stored)), describe(t, mountDisk(t, d)))
			chain, err := s.Layers(context.Background(), stored)
			if err != nil {
				t.Fatal(err)
			}
			defer chain.Release()
			if d.MaxID != chain.MaxID {
				t.Errorf("MaxID is %d, want %d", d.MaxID, chain.MaxID)
			}
		})
	}
}

// big is an image whose disk takes a while.
func big(tb testing.TB) *imagetest.Image {
	noise := make([]byte, 24<<20)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	entries := []imagetest.Entry{imagetest.File("noise", string(noise))}
	for i := range 300 {
		entries = append(entries, imagetest.File("d/"+strings.Repeat("n", i%200)+"-"+string(rune('a'+i%26)), strings.Repeat("x", i*20)))
	}
	layer := imagetest.Tar(tb, entries...)
	return imagetest.NewPacked(tb, manifest.RunConfig{}, manifest.OCILayer, [][]byte{layer}, [][]byte{layer})
}

// TestDiskIsMadeOnce asks for one disk in many ways at once.
func TestDiskIsMadeOnce(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	s, err := image.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	im := load(t, s, big(t), "big")
	var wg sync.WaitGroup
	var mu sync.Mutex
	makers := 0
	for range 12 {
		wg.Go(func() {
			made := false
			d, release, err := s.Disk(context.Background(), workload.Image{Digest: im.Digest.String()}, func(int64) { made = true })
			if err != nil {
				t.Error(err)
				return
			}
			defer release()
			f, err := os.Open(d.Path)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if info, err := erofs.Check(f); err != nil || info.Size != d.Size {
				t.Errorf("Check() = %v, %v; want size %d", info, err, d.Size)
			}
			mu.Lock()
			defer mu.Unlock()
			if made {
				makers++
			}
		})
	}
	for range 8 {
		cmd := player(t, "disk", root, "IMAGE_TEST_DIGEST="+im.Digest.String())
		wg.Go(func() {
			out, err := cmd.Output()
			if err != nil {
				t.Errorf("another process: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			if strings.HasPrefix(string(out), "true") {
				makers++
			}
		})
	}
	wg.Wait()
	if makers != 1 {
		t.Errorf("%d of twenty made the disk", makers)
	}
	checkClean(t, root)
}

func TestDiskIsCollected(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	s, err := image.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	im := load(t, s, layered(t), "img")
	d, release := disk(t, s, im)
	if got, err := s.Inspect("img"); err != nil || got.VMDisk <= 0 || got.VMDisk > d.Size {
		t.Errorf("Inspect: the disk takes %d bytes, %v; it has %d", got.VMDisk, err, d.Size)
	}
	if _, err := s.Prune(false, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove("img", true, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.Path); err != nil {
		t.Errorf("the disk went while it was held: %v", err)
	}
	release()
	rep, err := s.Prune(false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(d.Path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the disk stays without its image: %v", err)
	}
	if rep.Bytes < im.DiskSize+4096 {
		t.Errorf("Prune reports %d bytes, the layers alone have %d", rep.Bytes, im.DiskSize)
	}
	checkClean(t, root)
	if _, _, err := s.Disk(context.Background(), workload.Image{Digest: im.Digest.String()}, nil); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("the disk of a removed image: %v", err)
	}
}

// TestDiskOfBaseGoes removes an image whose layers another image goes on with:
// the layers stay, the disk does not.
func TestDiskOfBaseGoes(t *testing.T) {
	needRoot(t)
	s := openStore(t)
	a, b := imagetest.Tar(t, imagetest.File("a", "a")), imagetest.Tar(t, imagetest.File("b", "b"))
	base, derived := load(t, s, imagetest.New(t, manifest.RunConfig{}, a), "base"), load(t, s, imagetest.New(t, manifest.RunConfig{}, a, b), "derived")
	d, release := disk(t, s, base)
	release()
	kept, release := disk(t, s, derived)
	release()
	if _, err := s.Remove("base", true, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the disk of the removed image: %v", err)
	}
	if _, err := os.Stat(kept.Path); err != nil {
		t.Errorf("the disk of the other image: %v", err)
	}
}

func TestDamagedDiskIsMadeAgain(t *testing.T) {
	needRoot(t)
	s := openStore(t)
	im := load(t, s, layered(t), "img")
	other := load(t, s, small(t, "other"), "other")
	d, release := disk(t, s, im)
	release()
	good, err := os.ReadFile(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	foreign, release := disk(t, s, other)
	release()
	raw, err := os.ReadFile(foreign.Path)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{"cut": good[:len(good)-4096], "empty": nil, "another image": raw, "zeros": make([]byte, len(good))} {
		if err := os.WriteFile(d.Path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		again, release := disk(t, s, im)
		got, err := os.ReadFile(again.Path)
		release()
		if err != nil || !bytes.Equal(got, good) {
			t.Errorf("%s: not made again, %v", name, err)
		}
	}
}

func TestDiskLimit(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	s, err := image.Open(root, image.WithDiskLimit(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	im := load(t, s, imagetest.New(t, manifest.RunConfig{}, imagetest.Tar(t, imagetest.File("zeros", strings.Repeat("\x00", 2<<20)))), "img")
	ask := func(s *image.Store) error {
		_, release, err := s.Disk(context.Background(), workload.Image{Digest: im.Digest.String(), Reference: "img"}, nil)
		if err == nil {
			release()
		}
		return err
	}
	if err := ask(s); !errors.Is(err, image.ErrDiskLimit) || !strings.Contains(err.Error(), "1048576 bytes") {
		t.Errorf("an image of 2 MiB on 1 MiB: %v", err)
	}
	checkClean(t, root)
	large, err := image.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := ask(large); err != nil {
		t.Error(err)
	}
	if err := ask(s); !errors.Is(err, image.ErrDiskLimit) {
		t.Errorf("a disk that is there already: %v", err)
	}
}

// TestDiskOnFullStore has room for the image but not for its disk.
func TestDiskOnFullStore(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=4m,mode=0700"); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s, err := image.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	im := load(t, s, imagetest.New(t, manifest.RunConfig{}, imagetest.Tar(t, imagetest.File("big", strings.Repeat("x", 3<<20)))), "img")
	_, _, err = s.Disk(context.Background(), workload.Image{Digest: im.Digest.String()}, nil)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "no space left") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want ENOSPC in one line", err)
	}
	checkClean(t, root)
	if _, err := s.Remove("img", true, nil); err != nil {
		t.Errorf("remove on the full disk: %v", err)
	}
}

// TestKilledWhileMakingDisk kills processes at any moment of it.
func TestKilledWhileMakingDisk(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	s, err := image.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	im := load(t, s, big(t), "big")
	cut := 0
	for i := range 14 {
		cmd := player(t, "disk", root, "IMAGE_TEST_DIGEST="+im.Digest.String())
		cmd.Stderr = nil
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(5+i*8) * time.Millisecond) // another moment each time
		cmd.Process.Kill()
		if cmd.Wait() != nil {
			cut++
		}
		found, _ := filepath.Glob(filepath.Join(root, "images/disks/*/image.erofs"))
		for _, path := range found {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := erofs.Check(f); err != nil {
				t.Errorf("visible after a kill: %v", err)
			}
			f.Close()
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		checkConsistent(t, root)
	}
	if cut == 0 {
		t.Error("no process was killed in time")
	}
	_, release := disk(t, s, im)
	release()
}

// TestDiskWaitEnds gives up waiting for another maker.
func TestDiskWaitEnds(t *testing.T) {
	needRoot(t)
	s := openStore(t)
	im := load(t, s, layered(t), "img")
	d, release := disk(t, s, im)
	release()
	lock, err := os.Open(filepath.Join(filepath.Dir(d.Path), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(d.Path); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := s.Disk(ctx, workload.Image{Digest: im.Digest.String()}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the end of the context", err)
	}
	lock.Close()
	_, release = disk(t, s, im) // the one that gave up must not keep the lock
	release()
}
