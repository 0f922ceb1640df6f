package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Changes are what commands have changed of a workload since it was made: the
// contents of changes.json, which stands beside spec.json and takes the place of
// what that says. Whoever has the workload's lock may replace it.
type Changes struct {
	Name      string              `json:"name,omitempty"`
	Resources *workload.Resources `json:"resources,omitempty"` // all of them
	Restart   *workload.Restart   `json:"restart,omitempty"`
	// Networks are all that the workload is in, nil where they are those of its
	// making.
	Networks *[]workload.Attachment `json:"networks,omitempty"`
	// Link is a name whose link may have been left by a renaming that was
	// interrupted.
	Link string `json:"link,omitempty"`
}

// apply puts the changes into a specification.
func (c *Changes) apply(s *workload.Spec) {
	if c.Name != "" {
		s.Name = c.Name
	}
	if c.Resources != nil {
		s.Resources = *c.Resources
	}
	if c.Restart != nil {
		s.Restart = *c.Restart
	}
	if c.Networks != nil {
		s.Networks = *c.Networks
	}
}

func (l Layout) changes(id workload.ID) string { return filepath.Join(l.Dir(id), "changes.json") }

// readChanges reads what was changed; nothing is no error.
func (l Layout) readChanges(id workload.ID) (*Changes, error) {
	c := &Changes{}
	if err := read(l.changes(id), c); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read changes of workload %s: %w", id.Short(), err)
	}
	return c, nil
}

// Change records a change of a workload; f makes it.
func (l Layout) Change(id workload.ID, f func(*Changes)) error {
	c, err := l.readChanges(id)
	if err != nil {
		return err
	}
	f(c)
	b, err := json.Marshal(c)
	if err == nil {
		err = replace(l.changes(id), "", b, durable)
	}
	if err != nil {
		return fmt.Errorf("record changes of workload %s: %w", id.Short(), err)
	}
	return nil
}

// NameFree makes sure that no workload has a name, and removes the link of one
// that has not any more. The caller is in Exclusive.
func (l Layout) NameFree(name string) error {
	to, err := os.Readlink(l.Name(name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if id, err := workload.ParseID(to); err == nil && l.holds(id, name) {
		return fmt.Errorf("%w: %q belongs to workload %s", workload.ErrNameTaken, name, id.Short())
	}
	Did("name: stale link found")
	return os.Remove(l.Name(name))
}

// holds reports whether a workload exists and may have a name. One that is being
// made has its link before its record.
func (l Layout) holds(id workload.ID, name string) bool {
	if _, err := os.Lstat(l.Dir(id)); err != nil {
		return false
	}
	s, err := l.ReadSpec(id)
	return err != nil || s.Name == name
}

// Rename gives a workload, whose lock the caller holds, another name. It can be
// interrupted anywhere: the record says which of the links counts, and which may
// be left.
func (l Layout) Rename(id workload.ID, from, to string) error {
	return l.Exclusive(func() error {
		if err := l.NameFree(to); err != nil {
			return err
		}
		if err := l.dropLink(id); err != nil { // of a renaming before
			return err
		}
		if err := l.Change(id, func(c *Changes) { c.Link = to }); err != nil {
			return err
		}
		Did("rename: begun")
		if err := os.Symlink(string(id), l.Name(to)); err != nil {
			return err
		}
		Did("rename: name taken")
		if err := l.Change(id, func(c *Changes) { c.Name, c.Link = to, from }); err != nil {
			return errors.Join(err, os.Remove(l.Name(to)))
		}
		Did("rename: recorded")
		err := l.dropLink(id)
		Did("rename: old name freed")
		return err
	})
}

// dropLink removes the link that a renaming left. The caller is in Exclusive.
func (l Layout) dropLink(id workload.ID) error {
	c, err := l.readChanges(id)
	if err != nil || c.Link == "" || CheckName(c.Link) != nil {
		return err
	}
	if to, err := os.Readlink(l.Name(c.Link)); err != nil || to != string(id) {
		return nil
	}
	if err := os.Remove(l.Name(c.Link)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
