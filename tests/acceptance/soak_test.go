package acceptance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// cgroupsOf lists the cgroups of workloads, by the beginnings of their IDs, in
// every hierarchy.
func cgroupsOf(t testing.TB, ids map[string]bool) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup/bulkhead/*", "/sys/fs/cgroup/*/bulkhead/*"} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range dirs {
			for id := range ids {
				if len(id) == 12 && strings.HasPrefix(filepath.Base(d), id) {
					found = append(found, d)
				}
			}
		}
	}
	return found
}

// files lists everything below the state root.
func (w *world) files() map[string]bool {
	w.Helper()
	all := map[string]bool{}
	filepath.WalkDir(w.root, func(path string, _ os.DirEntry, err error) error {
		if err == nil {
			all[path] = true
		}
		return nil
	})
	return all
}

// TestSoak runs many workloads, one after the other and then at the same time.
// The leak guard of the world looks for mounts, processes (whatever the test
// started is its descendant, so namespaces cannot outlive them) and descriptors;
// files and cgroups are looked for here.
func TestSoak(t *testing.T) {
	w := newWorld(t)
	sequential, concurrent := 500, 50
	if testing.Short() {
		sequential, concurrent = 30, 10
	}
	w.ok("run", "--rm", "box", "true") // makes what is made once
	before := w.files()
	ids := map[string]bool{}
	run := func(n int) string {
		r := w.do("run", "--rm", "box", "sh", "-c", fmt.Sprintf("hostname; echo run %d; exit %d", n, n%126))
		id, rest, _ := strings.Cut(r.out, "\n")
		if want := fmt.Sprintf("run %d\n", n); rest != want || r.code != n%126 || r.err != "" || len(id) != 12 {
			t.Errorf("run %d: got %+v", n, r)
		}
		return id
	}
	check := func(when string) {
		t.Helper()
		w.wantNothing()
		for f := range w.files() {
			if !before[f] {
				t.Errorf("%s: left behind: %s", when, f)
			}
		}
		if left := cgroupsOf(t, ids); len(left) > 0 {
			t.Errorf("%s: left behind: %v", when, left)
		}
	}
	for n := range sequential {
		ids[run(n)] = true
	}
	check("sequential")
	var wg sync.WaitGroup
	var mu sync.Mutex
	for n := range concurrent {
		wg.Go(func() {
			id := run(n)
			mu.Lock()
			ids[id] = true
			mu.Unlock()
		})
	}
	wg.Wait()
	check("concurrent")
	if len(ids) != sequential+concurrent {
		t.Errorf("%d different host names of %d runs", len(ids), sequential+concurrent)
	}
}
