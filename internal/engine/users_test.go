package engine

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// askedImages calls asked before it gives layers.
type askedImages struct {
	images
	asked func()
}

func (i askedImages) Layers(ctx context.Context, img workload.Image) (workload.Layers, func(), error) {
	i.asked()
	return i.images.Layers(ctx, img)
}

// TestImageUsers asks who was made from an image: whoever is being made counts
// before his layers are looked for, and so does one of which nothing can be told.
func TestImageUsers(t *testing.T) {
	w := newWorld(t)
	users := func(digest string) []string {
		t.Helper()
		of, err := w.ImageUsers()
		if err != nil {
			t.Fatal(err)
		}
		return of(digest)
	}
	asked := 0
	source := askedImages{w.cfg.Images.(images), func() {
		asked++
		if got := users("sha256:a"); !slices.Equal(got, []string{"web"}) {
			t.Errorf("when the layers are asked for: got %v", got)
		}
	}}
	w.cfg.Images = source
	s := spec("pause")
	s.Name, s.Image.Digest = "web", "sha256:a"
	r, err := w.Create(ctx(t), s)
	if err != nil {
		t.Fatal(err)
	}
	if asked != 1 {
		t.Errorf("layers were asked for %d times", asked)
	}
	if got := users("sha256:a"); !slices.Equal(got, []string{"web"}) {
		t.Errorf("created: got %v", got)
	}
	if got := users("sha256:b"); len(got) != 0 {
		t.Errorf("another image: got %v", got)
	}
	if err := os.WriteFile(filepath.Join(r.Dir, "spec.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, digest := range []string{"sha256:a", "sha256:b"} {
		if got := users(digest); len(got) != 1 || !strings.Contains(got[0], r.Spec.ID.Short()) {
			t.Errorf("unreadable: %s: got %v", digest, got)
		}
	}
	if err := w.Remove(ctx(t), string(r.Spec.ID), true); err != nil {
		t.Fatal(err)
	}
	if got := users("sha256:a"); len(got) != 0 {
		t.Errorf("removed: got %v", got)
	}
}

// TestNetworkUsers asks who has a network: whoever is being made does, and so does one
// of which nothing can be told.
func TestNetworkUsers(t *testing.T) {
	w := newWorld(t)
	users := func(name string) []string {
		t.Helper()
		of, err := w.NetworkUsers()
		if err != nil {
			t.Fatal(err)
		}
		return of(name)
	}
	w.cfg.Images = askedImages{w.cfg.Images.(images), func() {
		if got := users("back"); !slices.Equal(got, []string{"web"}) {
			t.Errorf("while it is made: got %v", got)
		}
	}}
	s := spec("pause")
	s.Name, s.Network = "web", workload.NetworkBridge
	s.Networks = []workload.Attachment{{Network: "front"}, {Network: "back"}}
	r, err := w.Create(ctx(t), s)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"front": 1, "back": 1, "other": 0} {
		if got := users(name); len(got) != want {
			t.Errorf("created: %s: got %v, want %d", name, got, want)
		}
	}
	if err := os.WriteFile(filepath.Join(r.Dir, "spec.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := users("other"); len(got) != 1 || !strings.Contains(got[0], r.Spec.ID.Short()) {
		t.Errorf("unreadable: got %v", got)
	}
	if err := w.Remove(ctx(t), string(r.Spec.ID), true); err != nil {
		t.Fatal(err)
	}
}
