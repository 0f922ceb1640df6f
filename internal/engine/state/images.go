package state

import (
	"errors"
	"os"
	"slices"
)

// ImageUsers tells which workloads, running or not, were made from the image with
// a manifest digest. A workload whose spec cannot be read may be made from any.
//
// A workload's spec is written before the image store is asked for its layers. So
// whoever asks here with that store's lock held either finds the workload, or it
// finds the image gone.
func (l Layout) ImageUsers() (func(manifest string) []string, error) {
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
			users[spec.Image.Digest] = append(users[spec.Image.Digest], spec.Name)
		}
	}
	return func(manifest string) []string {
		names := slices.Concat(users[manifest], unknown)
		slices.Sort(names)
		return names
	}, nil
}
