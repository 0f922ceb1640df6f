package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
)

// machines asks for what --boundary vm needs, and nothing else does.
func machines(m Machine) []Result {
	return []Result{emulator(m), virtualization(m), guestKernel(m)}
}

func emulator(m Machine) Result {
	const name = "QEMU"
	path, v, err := m.QEMU()
	var old *qemu.Fault
	switch {
	case errors.Is(err, qemu.ErrNotInstalled):
		return missing(name, "not installed: --boundary vm fails", "install the package qemu-system-x86")
	case errors.As(err, &old):
		return missing(name, path+": "+old.Text, "install a newer qemu-system-x86; --boundary vm fails with this one")
	case err != nil:
		return unknown(name, err)
	}
	return ok(name, fmt.Sprintf("version %s, %s", v, path))
}

// virtualization names every accelerator with its reason. Emulation is always
// there, and never counts as what is asked for.
func virtualization(m Machine) Result {
	const name = "hardware virtualization"
	var usable, all string
	for _, a := range m.Accelerators() {
		text := fmt.Sprintf("%s: %s", a.Accel, a.Reason)
		if all != "" {
			all += "; "
		}
		all += text
		if a.Usable && a.Accel != qemu.TCG {
			usable = text
		}
	}
	switch {
	case usable != "":
		return ok(name, usable)
	case all == "":
		return unknown(name, errors.New("no accelerator was tried"))
	}
	return missing(name, all, "switch on VT-x or AMD-V in the firmware, or nested virtualization on the host of this machine; "+
		"without it do not run behind --boundary vm what you must keep in")
}

func guestKernel(m Machine) Result {
	const name = "guest kernel"
	list, err := m.GuestKernels()
	if err != nil {
		return unknown(name, err)
	}
	if len(list) == 0 {
		return ok(name, "none yet; the first virtual machine fetches Debian's, unless --kernel names one")
	}
	for _, k := range list {
		if k.Default {
			return ok(name, fmt.Sprintf("%s, Linux %s", k.Name, k.Release))
		}
	}
	return missing(name, "the one that was chosen is gone", "choose one with `bulkhead kernel use`")
}

// guestKernels lists what is stored below the state root, which opening the
// store would make.
func guestKernels(root string) ([]kernel.Kernel, error) {
	_, err := os.Stat(filepath.Join(root, "kernels", "store"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s, err := kernel.Open(root)
	if err != nil {
		return nil, err
	}
	return s.List()
}
