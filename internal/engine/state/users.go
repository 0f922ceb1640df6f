package state

import (
	"errors"
	"os"
	"slices"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// ImageUsers tells which workloads, running or not, were made from the image with
// a manifest digest. A workload whose spec cannot be read may be made from any.
//
// A workload's spec is written before the image store is asked for its layers. So
// whoever asks here with that store's lock held either finds the workload, or it
// finds the image gone.
func (l Layout) ImageUsers() (func(manifest string) []string, error) {
	return l.users(func(s *workload.Spec) []string { return []string{s.Image.Digest} })
}

// NetworkUsers tells which workloads, running or not, or being made, have the network
// with a name. A workload whose spec cannot be read may have any.
func (l Layout) NetworkUsers() (func(name string) []string, error) {
	return l.users(func(s *workload.Spec) (names []string) {
		for _, a := range s.Networks {
			names = append(names, a.Network)
		}
		return names
	})
}

// users returns a function from a thing to the names of the workloads that have it, by
// what has says of each spec. Workloads whose spec cannot be read have everything.
func (l Layout) users(has func(*workload.Spec) []string) (func(what string) []string, error) {
	all, err := l.All()
	if err != nil {
		return nil, err
	}
	users := map[string][]string{}
	var unknown []string
	for _, id := range all {
		spec, err := l.ReadSpec(id)
		switch {
		case errors.Is(err, os.ErrNotExist): // it has none yet, or is gone
		case err != nil:
			unknown = append(unknown, id.Short()+" (its record cannot be read)")
		default:
			for _, what := range has(spec) {
				users[what] = append(users[what], spec.Name)
			}
		}
	}
	return func(what string) []string {
		names := slices.Concat(users[what], unknown)
		slices.Sort(names)
		return names
	}, nil
}
