package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// withCIDFile calls f, which tells the ID of the workload that it makes, and
// writes that to a file of its own, "" for none. Without a workload there is no
// file afterwards.
func withCIDFile(name string, f func(id func(workload.ID)) error) error {
	if name == "" {
		return f(func(workload.ID) {})
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	switch {
	case errors.Is(err, fs.ErrExist):
		return advice.Wrap(err, fmt.Sprintf("--cidfile %q exists", name), "another workload may have it; remove the file or give another")
	case err != nil:
		return advice.Wrap(err, fmt.Sprintf("--cidfile %q cannot be written: %s", name, fileReason(err)), "choose a place that can be written to")
	}
	var made workload.ID
	var werr error
	err = f(func(id workload.ID) {
		made = id
		_, werr = file.WriteString(string(id))
	})
	werr = cmp.Or(werr, file.Close())
	if made == "" || werr != nil {
		os.Remove(name)
	}
	if made == "" || werr == nil {
		return err
	}
	var status exitStatus
	if errors.As(err, &status) {
		err = nil // how the workload ended says less than that nobody was told its name
	}
	return both(err, advice.Wrap(werr, fmt.Sprintf("--cidfile %q cannot be written: %s; the workload is %s", name, fileReason(werr), made), "free some space, or take the ID from here"))
}

// streams checks --attach.
func (f *runFlags) streams(o *runspec.Options) error {
	for _, s := range f.attach {
		if !slices.Contains([]string{"stdin", "stdout", "stderr"}, s) {
			return advice.New(fmt.Sprintf("--attach %q: there is no such stream", s), "give stdin, stdout or stderr")
		}
	}
	if f.detach && len(f.attach) > 0 {
		return advice.New("-d leaves nobody to attach to", "leave out -d or -a")
	}
	o.Interactive = o.Interactive || slices.Contains(f.attach, "stdin")
	return nil
}
