package pid1

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// diskLimit is how long a disk may take to appear. The drivers of all disks
// probe while the guest boots, so one that is missing is mostly not there at
// all.
const diskLimit = 5 * time.Second

// maxSerial is the length of a virtio disk's serial number, VIRTIO_BLK_ID_BYTES.
const maxSerial = 20

// findDisk returns the device of the disk with this serial number.
func findDisk(serial string) (string, error) {
	if serial == "" || len(serial) > maxSerial {
		return "", fmt.Errorf("disk serial %.40q: want 1 to %d bytes", serial, maxSerial)
	}
	var device string
	err := await(diskLimit, func() (bool, error) {
		files, err := filepath.Glob("/sys/block/*/serial")
		if err != nil {
			return false, err
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				continue // it went away
			}
			if strings.TrimRight(string(b), "\n") != serial {
				continue
			}
			device = "/dev/" + filepath.Base(filepath.Dir(file))
			return true, nil
		}
		return false, nil
	})
	if err != nil {
		return "", fmt.Errorf("the machine has no disk with serial number %q: %w", serial, err)
	}
	return device, nil
}

// flush drops what the kernel has cached of a disk (BLKFLSBUF): the host may
// have put another image behind it.
func flush(device string) error {
	fd, err := unix.Open(device, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: device, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.IoctlSetInt(fd, unix.BLKFLSBUF, 0); err != nil {
		return &os.PathError{Op: "ioctl BLKFLSBUF", Path: device, Err: err}
	}
	return nil
}
