package pid1

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// modulesDir holds the modules in the initramfs, and a list of their paths in
// the order in which they are to be loaded, one a line.
const (
	modulesDir   = "/modules"
	modulesOrder = modulesDir + "/order"
)

// initCompressed is MODULE_INIT_COMPRESSED_FILE of linux/module.h, Linux 5.17:
// the kernel unpacks the module.
const initCompressed = 4

// loadModules loads every module of the list. No list is no modules: a kernel
// may have everything built in.
func loadModules() error {
	list, err := os.Open(modulesOrder)
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
		return fmt.Errorf("read %s: %w", modulesOrder, err)
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
