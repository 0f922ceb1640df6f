package boundary

import (
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// maxEdited is how much of a file is edited, in bytes. One that its workload has
// made longer stays as it is.
const maxEdited = 1 << 20

// EditFile changes one of Prepared.Files. It is written in place, as it is mounted
// in the workload, keeps its owner, and no link is followed.
func EditFile(file string, e workload.FileEdit) error {
	f, err := os.OpenFile(file, os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	now, err := io.ReadAll(io.LimitReader(f, maxEdited+1))
	if next := e.Apply(now); err == nil && len(now) <= maxEdited && !bytes.Equal(now, next) {
		if err = f.Truncate(0); err == nil {
			_, err = f.WriteAt(next, 0)
		}
	}
	return errors.Join(err, f.Close())
}
