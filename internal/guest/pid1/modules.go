package pid1

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// modulesDir holds the modules in the initramfs, and a list of their paths in
// the order in which they are to be loaded, one a line.
const (
	modulesDir   = "/modules"
	modulesOrder = modulesDir + "/order"
	// modulesNetwork is a list of those for a machine with a network device.
	modulesNetwork = modulesDir + "/network"
)

// initCompressed is MODULE_INIT_COMPRESSED_FILE of linux/module.h, Linux 5.17:
// the kernel unpacks the module.
const initCompressed = 4

// loadModules loads what the machine needs. No list is no modules: a kernel
// may have everything built in.
func loadModules() error {
	if err := loadList(modulesOrder); err != nil {
		return err
	}
	if found, err := hasNetwork(newRoot + "/sys"); err != nil || !found {
		return err
	}
	return loadList(modulesNetwork)
}

// networkDevice is the ID of a network device in virtio 1.2, section 5.
const networkDevice = "0x0001"

// hasNetwork looks for a virtio network device: for the driver that finds it
// too late there is no use, and for the others the time to load it is lost.
func hasNetwork(sys string) (bool, error) {
	files, err := filepath.Glob(sys + "/bus/virtio/devices/*/device")
	if err != nil {
		return false, err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return false, err
		}
		if strings.TrimSpace(string(b)) == networkDevice {
			return true, nil
		}
	}
	return false, nil
}

func loadList(name string) error {
	list, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer list.Close()
	lines := bufio.NewScanner(list)
	for lines.Scan() {
		name := strings.TrimSpace(lines.Text())
		if name == "" {
			continue
		}
		if !path.IsAbs(name) {
			name = path.Join(modulesDir, name)
		}
		if err := loadModule(name); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// loadModule loads one module. One that is there already, maybe built in, is no
// error.
func loadModule(name string) error {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	flags := 0
	switch path.Ext(name) {
	case ".gz", ".xz", ".zst":
		flags = initCompressed
	}
	if err := unix.FinitModule(fd, "", flags); err != nil && err != unix.EEXIST {
		return fmt.Errorf("load the kernel module %s: %w", name, err)
	}
	return nil
}
