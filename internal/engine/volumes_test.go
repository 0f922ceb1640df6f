package engine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/volume"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// withVolumes is a spec that has a named volume and an anonymous one, where the
// image has content.
func (w *world) withVolumes(name string, args ...string) workload.Spec {
	w.t.Helper()
	dir := filepath.Join(w.dir, "layer", "srv")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "file"), []byte("text"), 0o640)); err != nil {
		w.t.Fatal(err)
	}
	s := spec(args...)
	s.Name = name
	s.Mounts = []workload.Mount{{Type: "volume", Source: "named", Target: "/srv"}, {Type: "volume", Target: "/srv"}}
	return s
}

// anonymous lists the anonymous volumes.
func (w *world) anonymous() (names []string) {
	w.t.Helper()
	all, err := w.Volumes(ctx(w.t))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, v := range all {
		if v.Anonymous {
			names = append(names, v.Name)
		}
	}
	return names
}

// wantContent fails unless a volume has all of the image's content.
func (w *world) wantContent(name string) {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.layout.Volumes().Data(name), "file"))
	if err != nil || string(b) != "text" {
		w.t.Errorf("volume %s: %q, %v", name, b, err)
	}
}

// TestBorrowedVolume creates a workload with the anonymous volume of another that
// is gone, as --volumes-from does whose image takes long to fetch: an empty one
// does not take its place.
func TestBorrowedVolume(t *testing.T) {
	w := newWorld(t)
	s := w.withVolumes("first", "exit", "0")
	r, err := w.Create(ctx(t), s)
	if err != nil {
		t.Fatal(err)
	}
	borrowed := r.Spec.Mounts[1]
	if err := w.RemoveWith(ctx(t), "first", RemoveOptions{Volumes: true}); err != nil {
		t.Fatal(err)
	}
	second := spec("exit", "0")
	second.Name, second.Mounts = "second", []workload.Mount{borrowed}
	if _, err := w.Create(ctx(t), second); !errors.Is(err, volume.ErrNotFound) {
		t.Errorf("got %v, want no such volume", err)
	}
	if got := w.anonymous(); len(got) > 0 {
		t.Errorf("volumes: %v", got)
	}
	if rs := w.list(); len(rs) > 0 {
		t.Errorf("workloads: %+v", rs)
	}
}

// TestVolumes: who has a volume keeps it, and what goes with whom.
func TestVolumes(t *testing.T) {
	w := newWorld(t)
	original := w.withVolumes("first", "exit", "0")
	r, err := w.Create(ctx(t), original)
	if err != nil {
		t.Fatal(err)
	}
	if original.Mounts[1].Source != "" {
		t.Error("the caller's spec was changed")
	}
	w.wantContent("named")
	w.wantContent(r.Spec.Mounts[1].Source)
	if err := w.RemoveVolume(ctx(t), "named"); !errors.Is(err, volume.ErrInUse) {
		t.Errorf("got %v", err)
	}
	if v, err := w.Volume(ctx(t), "named"); err != nil || !slices.Equal(v.Users, []string{"first"}) {
		t.Errorf("got %+v, %v", v, err)
	}
	// Another has the anonymous one, too.
	second := spec("exit", "0")
	second.Name, second.AutoRemove = "second", true
	second.Mounts = []workload.Mount{r.Spec.Mounts[1]} // --volumes-from
	if _, err := w.Create(ctx(t), second); err != nil {
		t.Fatal(err)
	}
	if err := w.RemoveWith(ctx(t), "first", RemoveOptions{Volumes: true}); err != nil {
		t.Fatal(err)
	}
	if got := w.anonymous(); len(got) != 1 {
		t.Errorf("anonymous volumes: %v", got)
	}
	session, err := w.Start(ctx(t), "second", &Streams{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := session.Wait(ctx(t)); err != nil {
		t.Error(err)
	}
	if got := w.anonymous(); len(got) != 0 {
		t.Errorf("anonymous volumes: %v", got)
	}
	// One that is named although it has no name of its own stays.
	v, err := w.CreateVolume(ctx(t), volume.Volume{})
	if err != nil {
		t.Fatal(err)
	}
	third := spec("exit", "0")
	third.AutoRemove, third.Mounts = true, []workload.Mount{{Type: "volume", Source: v.Name, Target: "/x"}}
	if exit, _, _ := w.run(third, ""); exit.Code != 0 {
		t.Errorf("got %+v", exit)
	}
	if got := w.anonymous(); !slices.Equal(got, []string{v.Name}) {
		t.Errorf("anonymous volumes: %v", got)
	}
	if err := w.RemoveVolume(ctx(t), v.Name); err != nil {
		t.Error(err)
	}
	if names, _, err := w.PruneVolumes(ctx(t), func(volume.Volume) bool { return true }); err != nil || !slices.Equal(names, []string{"named"}) {
		t.Errorf("got %v, %v", names, err)
	}
}

// TestVolumeOfFailedRun: what could not be started leaves no volume.
func TestVolumeOfFailedRun(t *testing.T) {
	w := newWorld(t)
	s := w.withVolumes("bad")
	s.Process.Args = []string{"/bin/missing"}
	if _, err := w.Run(ctx(t), s, nil); !errors.Is(err, workload.ErrCommandNotFound) {
		t.Errorf("got %v", err)
	}
	s.Mounts = append(s.Mounts, workload.Mount{Type: "volume", Source: "../x", Target: "/x"})
	if _, err := w.Create(ctx(t), s); !errors.Is(err, volume.ErrName) {
		t.Errorf("got %v", err)
	}
	if all, err := w.Volumes(ctx(t)); err != nil || len(all) > 0 {
		t.Errorf("left: %+v, %v", all, err)
	}
}

// TestVolumeCrash ends commands with SIGKILL after each of their steps. A
// workload that exists has its volumes with all of the content, and nothing is
// left of the anonymous ones of one that does not.
func TestVolumeCrash(t *testing.T) {
	w := newWorld(t)
	w.withVolumes("")
	once := w.withVolumes("victim", "both")
	once.AutoRemove = true
	for name, do := range map[string][]command{
		"create":     {{Op: "create", Spec: w.withVolumes("victim", "both")}},
		"run --rm":   {{Op: "run", Spec: once}},
		"remove all": {{Op: "create", Spec: w.withVolumes("victim", "both")}, {Op: "remove-volumes", Ref: "victim"}},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			list := filepath.Join(t.TempDir(), "steps")
			for _, c := range do {
				w.child(c, envSteps+"="+list)
			}
			w.clearVolumes()
			b, err := os.ReadFile(list)
			if err != nil {
				t.Fatal(err)
			}
			steps := strings.Split(strings.TrimSpace(string(b)), "\n")
			slices.Sort(steps)
			for _, step := range slices.Compact(steps) {
				w.volumeCrashAt(step, do)
			}
		})
	}
	w.t = t
}

// clearVolumes removes the victim with all volumes.
func (w *world) clearVolumes() {
	w.t.Helper()
	if err := w.RemoveWith(ctx(w.t), "victim", RemoveOptions{Force: true, Volumes: true}); err != nil && !errors.Is(err, workload.ErrNotFound) {
		w.t.Fatal(err)
	}
	if _, _, err := w.PruneVolumes(ctx(w.t), func(v volume.Volume) bool { return !v.Anonymous }); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) volumeCrashAt(step string, do []command) {
	w.t.Helper()
	crashed := filepath.Join(w.t.TempDir(), "crashed")
	for _, c := range do {
		killed, _ := w.child(c, envCrash+"="+step, envCrashed+"="+crashed)
		if killed || exists(crashed) {
			break
		}
	}
	if !exists(crashed) {
		w.t.Fatalf("%s: never reached", step)
	}
	if id, err := w.layout.Find("victim"); err == nil && strings.HasPrefix(step, "supervisor: ") {
		w.awaitDeath(id)
	}
	w.reopen()
	r, err := w.Inspect(ctx(w.t), "victim")
	removing := do[len(do)-1].Op == "remove-volumes"
	switch {
	case err == nil && r.Status == workload.Running: // its supervisor goes on
		if _, err := w.Wait(ctx(w.t), "victim"); err != nil && !errors.Is(err, workload.ErrNotFound) {
			w.t.Errorf("%s: %v", step, err)
		}
	case err == nil && !removing:
		w.wantContent("named")
		w.wantContent(r.Spec.Mounts[1].Source)
	case err != nil && !errors.Is(err, workload.ErrNotFound):
		w.t.Errorf("%s: %v", step, err)
	}
	if err := w.RemoveWith(ctx(w.t), "victim", RemoveOptions{Force: true, Volumes: true}); err != nil && !errors.Is(err, workload.ErrNotFound) {
		w.t.Errorf("%s: remove: %v", step, err)
	}
	if got := w.anonymous(); len(got) > 0 {
		w.t.Errorf("%s: anonymous volumes are left: %v", step, got)
	}
	w.clearVolumes()
	w.wantEmpty()
	if names, err := os.ReadDir(filepath.Join(w.dir, "root/volumes")); err != nil || len(names) > 1 {
		// Of volumes that were being made or removed, the next one that is made
		// takes the rest away.
		if _, err := w.CreateVolume(ctx(w.t), volume.Volume{Name: "next"}); err != nil {
			w.t.Error(err)
		}
		w.clearVolumes()
		if names, _ = os.ReadDir(filepath.Join(w.dir, "root/volumes")); len(names) > 1 {
			w.t.Errorf("%s: left in the store: %v", step, names)
		}
	}
}

// TestVolumeRaces: many workloads are the first to have a volume, while others
// try to remove it.
func TestVolumeRaces(t *testing.T) {
	w := newWorld(t)
	s := w.withVolumes("", "exit", "0")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 3 {
				r, err := w.Create(ctx(t), s)
				if err != nil {
					t.Error(err)
					return
				}
				w.wantContent("named")
				if err := w.RemoveVolume(ctx(t), "named"); !errors.Is(err, volume.ErrInUse) {
					t.Errorf("removed under a workload: %v", err)
				}
				w.wantContent("named")
				if err := w.RemoveWith(ctx(t), string(r.Spec.ID), RemoveOptions{Volumes: true}); err != nil {
					t.Error(err)
				}
				w.RemoveVolume(ctx(t), "named") // maybe nobody else has it
			}
		})
	}
	wg.Wait()
	if got := w.anonymous(); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
}

// TestVolumeDiskFull: content that does not fit fails the command, and nothing
// is left.
func TestVolumeDiskFull(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=2m,mode=700"); err != nil {
		t.Skipf("needs to mount a small file system: %v", err)
	}
	defer syscall.Unmount(root, 0)
	t.Run("", func(t *testing.T) { // so that the guard looks before the unmount
		w := newWorldIn(t, dir)
		s := w.withVolumes("full", "exit", "0")
		if err := os.WriteFile(filepath.Join(dir, "layer/srv/big"), make([]byte, 3<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Create(ctx(t), s); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("got %v", err)
		}
		w.wantEmpty()
		if all, err := w.Volumes(ctx(t)); err != nil || len(all) > 0 {
			t.Errorf("left: %+v, %v", all, err)
		}
		// A volume that was there before is there, and empty.
		if _, err := w.CreateVolume(ctx(t), volume.Volume{Name: "named"}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Create(ctx(t), s); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("got %v", err)
		}
		if left, err := os.ReadDir(w.layout.Volumes().Data("named")); err != nil || len(left) > 0 {
			t.Errorf("a part of the content: %v, %v", left, err)
		}
	})
}
