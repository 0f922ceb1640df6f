package vm

import (
	"context"
	"io"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

var _ boundary.Files = (*instance)(nil)

// transfer lets the processors of a machine that is paused run while f asks its guest. The
// processes of a paused workload stay as they are: the guest holds them too.
func (i *instance) transfer(ctx context.Context, f func() error) error {
	if i.machine != nil {
		done, err := i.machine.processors.ask(ctx)
		if err != nil {
			return err
		}
		defer done()
	}
	return i.blame(f())
}

// ReadArchive asks the agent.
func (i *instance) ReadArchive(ctx context.Context, path string, o boundary.ReadOptions, w io.Writer) error {
	return i.transfer(ctx, func() error { return i.Instance.ReadArchive(ctx, path, o, w) })
}

// WriteArchive asks the agent.
func (i *instance) WriteArchive(ctx context.Context, dir string, o boundary.ArchiveOptions, r io.Reader) error {
	return i.transfer(ctx, func() error { return i.Instance.WriteArchive(ctx, dir, o, r) })
}

// StatPath asks the agent, for a limited time.
func (i *instance) StatPath(ctx context.Context, path string) (s workload.PathStat, err error) {
	err = i.transfer(ctx, func() error {
		return within(ctx, answerTimeout, func(ctx context.Context) (err error) {
			s, err = i.Instance.StatPath(ctx, path)
			return err
		})
	})
	return s, err
}

// Changes asks the agent.
func (i *instance) Changes(ctx context.Context) (c []workload.Change, err error) {
	err = i.transfer(ctx, func() (err error) {
		c, err = i.Instance.Changes(ctx)
		return err
	})
	return c, err
}
