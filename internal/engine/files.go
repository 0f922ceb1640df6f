package engine

import (
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/etc"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// hostFiles are the files that a workload gets from the engine, because their
// contents depend on the host and not on the image. In networks of the engine the
// supervisor writes them again when the workload's addresses are known.
var hostFiles = map[string]func(*workload.Spec) ([]byte, error){
	"/etc/hostname":    func(s *workload.Spec) ([]byte, error) { return etc.Hostname(s), nil },
	"/etc/hosts":       func(s *workload.Spec) ([]byte, error) { return etc.Hosts(s, etc.Net{}) },
	"/etc/resolv.conf": func(s *workload.Spec) ([]byte, error) { return etc.Resolv(s, etc.Net{}) },
}

// filePaths returns where the host's copy of each file lies, by its path
// inside, without those that a mount of the user takes the place of.
func filePaths(dir string, s *workload.Spec) map[string]string {
	files := map[string]string{}
	for target := range hostFiles {
		files[target] = filepath.Join(dir, path.Base(target))
	}
	for _, m := range s.Mounts {
		delete(files, path.Clean(m.Target))
	}
	return files
}

// makeFiles writes them. They belong to the workload's root, who may change them.
func makeFiles(dir string, s *workload.Spec, st *state.State) (map[string]string, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	files := filePaths(dir, s)
	for target, file := range files {
		b, err := hostFiles[target](s)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(file, b, 0o644); err != nil {
			return nil, err
		}
		// Whatever the caller's umask is.
		if err := os.Chmod(file, 0o644); err != nil {
			return nil, err
		}
		if os.Geteuid() == 0 {
			if err := os.Lchown(file, int(st.IDBase), int(st.IDBase)); err != nil {
				return nil, err
			}
		}
	}
	return files, nil
}

// The parts of generated names.
var (
	firstNames = []string{
		"amber", "brisk", "calm", "clear", "deep", "dry", "early", "even", "fair", "firm", "fresh", "gentle", "grand",
		"green", "high", "keen", "kind", "late", "light", "long", "lucky", "mild", "neat", "new", "noble", "old", "plain",
		"proud", "quick", "quiet", "rare", "ready", "round", "sharp", "silver", "slow", "small", "soft", "steady", "swift",
	}
	lastNames = []string{
		"anchor", "barque", "beacon", "bow", "brig", "buoy", "canal", "cape", "cutter", "deck", "dock", "ferry", "gale",
		"galley", "harbor", "hatch", "helm", "hull", "island", "keel", "ketch", "lagoon", "mast", "oar", "pier", "port",
		"quay", "reef", "rudder", "sail", "schooner", "shoal", "sloop", "spar", "stern", "strait", "tide", "tug", "wharf", "yawl",
	}
)

// randomName returns a name for a workload that was given none; n counts the
// tries before this one.
func randomName(n int) string {
	name := firstNames[rand.IntN(len(firstNames))] + "-" + lastNames[rand.IntN(len(lastNames))]
	if n > 0 {
		name += "-" + strconv.Itoa(rand.IntN(100*n))
	}
	return name
}
