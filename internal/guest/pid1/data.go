package pid1

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

const (
	// DataDir is where the data disk is mounted.
	DataDir = "/run/bulkhead/data"
	// dataSerial is the serial number of the data disk.
	dataSerial = "data"
)

// data is the disk that holds what workloads write. It is mounted when the
// first workload wants it, not before: in a machine that was saved to be
// cloned, each clone has a disk of its own.
type data struct {
	dir     string // of the mounted disk; DataDir but in tests
	mount   func() error
	mu      sync.Mutex
	mounted bool
}

func newData() *data { return &data{dir: DataDir, mount: mountData} }

// open mounts the disk unless it is. There is no other place for what a
// workload writes: without a data disk this is an error.
func (d *data) open() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mounted {
		return nil
	}
	if err := d.mount(); err != nil {
		return fmt.Errorf("data disk: %w", err)
	}
	d.mounted = true
	return nil
}

func mountData() error {
	device, err := findDisk(dataSerial)
	if err != nil {
		return err
	}
	if err := flush(device); err != nil {
		return err
	}
	if err := os.MkdirAll(DataDir, 0o700); err != nil {
		return err
	}
	// Not nosuid: workloads keep setuid programs in it. After an error on the
	// disk nothing more is written, so that it shows. noinit_itable: no writing
	// of zeroes in the background.
	if err := unix.Mount(device, DataDir, "ext4", unix.MS_NODEV|unix.MS_NOATIME, "errors=remount-ro,noinit_itable"); err != nil {
		return fmt.Errorf("mount %s as ext4: %w", device, err)
	}
	return nil
}

// place is the directory of a workload on the disk.
func (d *data) place(id workload.ID) (string, error) {
	if _, err := workload.ParseID(string(id)); err != nil {
		return "", err
	}
	return filepath.Join(d.dir, "workloads", string(id)), nil
}

// prepare makes the writable directories of a workload's overlay, or finds those
// of its last start. The root of an overlay shows the attributes of its upper
// directory, so that gets those of root, the image's, with the owner moved into
// the workload's range of IDs.
func (d *data) prepare(id workload.ID, root string, idBase, idCount uint32) (upper, work string, err error) {
	dir, err := d.place(id)
	if err != nil {
		return "", "", err
	}
	mode, uid, gid, err := rootAttributes(root, idCount)
	if err != nil {
		return "", "", err
	}
	if err := d.open(); err != nil {
		return "", "", err
	}
	upper, work = filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	var st unix.Stat_t
	switch err := unix.Lstat(work, &st); err {
	case nil:
		if st.Uid != idBase {
			return "", "", fmt.Errorf("the data of workload %s belongs to user %d, not to %d, where its range begins", id.Short(), st.Uid, idBase)
		}
		return upper, work, nil
	case unix.ENOENT:
	default:
		return "", "", &os.PathError{Op: "stat", Path: work, Err: err}
	}
	// Under another name until it is complete: the machine may end any time.
	unfinished := dir + unfinishedSuffix
	if err := at.RemoveAll(at.CWD, unfinished); err != nil {
		return "", "", err
	}
	if err := os.MkdirAll(unfinished, 0o700); err != nil {
		return "", "", err
	}
	err = errors.Join(
		makeOwned(filepath.Join(unfinished, "upper"), mode, idBase+uid, idBase+gid),
		makeOwned(filepath.Join(unfinished, "work"), 0o700, idBase, idBase),
	)
	if err == nil {
		err = os.Rename(unfinished, dir)
	}
	if err != nil {
		return "", "", errors.Join(err, at.RemoveAll(at.CWD, unfinished))
	}
	return upper, work, nil
}

// makeOwned makes a directory.
func makeOwned(dir string, mode os.FileMode, uid, gid uint32) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := os.Lchown(dir, int(uid), int(gid)); err != nil {
		return err
	}
	return os.Chmod(dir, mode) // after the owner: chown clears the setgid bit
}

// rootAttributes are those of an image's root directory.
func rootAttributes(root string, idCount uint32) (mode os.FileMode, uid, gid uint32, err error) {
	fi, err := os.Stat(root)
	if err != nil {
		return 0, 0, 0, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, 0, fmt.Errorf("stat %s: no owner", root)
	}
	if idCount > 0 && (st.Uid >= idCount || st.Gid >= idCount) {
		return 0, 0, 0, fmt.Errorf("the image's root directory belongs to user %d, group %d: want less than %d", st.Uid, st.Gid, idCount)
	}
	return fi.Mode() & (os.ModePerm | os.ModeSticky | os.ModeSetgid), st.Uid, st.Gid, nil
}

// remove deletes what a workload wrote. It is no error if there is nothing. What
// is there may be as deep as a workload likes: whatever holds a descriptor or
// memory for each level would end the agent, and so the machine.
func (d *data) remove(id workload.ID) error {
	dir, err := d.place(id)
	if err != nil {
		return err
	}
	if err := d.open(); err != nil {
		return err
	}
	return at.RemoveAll(at.CWD, dir)
}

// unfinishedSuffix marks a workload's directory that is being made.
const unfinishedSuffix = ".new"

// keep deletes what is on the disk of other workloads than those that wanted
// names. It asks when it has seen what is there: mounting the disk takes long
// enough for another workload to come and make its directory.
func (d *data) keep(wanted func(workload.ID) bool) error {
	if err := d.open(); err != nil {
		return err
	}
	top := filepath.Join(d.dir, "workloads")
	entries, err := os.ReadDir(top)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !wanted(workload.ID(strings.TrimSuffix(e.Name(), unfinishedSuffix))) {
			err = errors.Join(err, at.RemoveAll(at.CWD, filepath.Join(top, e.Name())))
		}
	}
	return err
}
