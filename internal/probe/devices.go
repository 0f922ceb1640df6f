package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

const deviceFlag = "--device "

// usualDevices are those that the OCI runtime specification promises (config-linux.md,
// "Default Devices").
var usualDevices = []string{"c 1:3", "c 1:5", "c 1:7", "c 1:8", "c 1:9", "c 5:0", "c 5:1", "c 5:2"}

// kernelDevices lead to memory, logs, hardware or drivers of the host's kernel.
var kernelDevices = map[string]string{
	"c 1:1": "mem", "c 1:2": "kmem", "c 1:4": "port", "c 1:11": "kmsg", "c 10:200": "net/tun", "c 10:229": "fuse", "c 10:232": "kvm", "c 10:196": "vfio/vfio",
	"c 10:234": "btrfs-control", "c 10:237": "loop-control", "c 10:236": "mapper/control", "c 10:203": "cuse", "c 10:223": "uinput",
}

const foundDevices = "readdir(/dev), and what is mounted elsewhere"

func deviceProbes() []Probe {
	return []Probe{
		{
			ID: "devices.extra", Door: "devices beyond the usual", Expected: "the devices of the OCI specification and no others",
			Enables:     "a driver in the host's kernel, and what the device holds",
			Consequence: report.Reads,
			Opens:       []string{deviceFlag, "--volume /dev"},
			Fix:         "name the devices that are needed with --device, and only those",
			References:  []string{"OCI runtime-spec, config-linux.md", "CIS Docker 5.17"},
			observe: func(p *prober) {
				found, err := everyDevice()
				var more []string
				for _, d := range found {
					if !slices.Contains(usualDevices, d.id) && !strings.HasPrefix(d.id, "c 136:") { // terminals of /dev/pts
						more = append(more, d.path+" ("+d.id+")")
					}
				}
				if len(more) > 0 {
					err = nil // there may be others still
				}
				p.add(foundDevices, list(more), err)
			},
			judge: func(v *view) outcome {
				e, ok := v.call(foundDevices)
				switch {
				case !ok || e.Errno != "":
					return isUnclear(notListed(e))
				case e.Value == "":
					return isShut("the usual ones")
				}
				return isOpen(e.Value)
			},
		},
		{
			ID: "devices.kernel", Door: "devices of the kernel itself", Expected: "no kmsg, mem, kvm, tun or fuse can be opened",
			Enables:     "the host's log, memory or hypervisor, or a rich source of kernel bugs",
			Consequence: report.Disturbs,
			Opens:       []string{deviceFlag, "--volume /dev"},
			Fix:         "leave the device out",
			References:  []string{"kmsg: Documentation/ABI/testing/dev-kmsg", "CIS Docker 5.17"},
			observe: func(p *prober) {
				openDevices(p, func(d device) bool { return kernelDevices[d.id] != "" })
			},
			judge: inDevices,
		},
		{
			ID: "devices.disks", Door: "disks of the host", Expected: "no block device can be opened",
			Enables:     "reading and changing every file of the host, past its file systems",
			Consequence: report.Takeover,
			Opens:       []string{deviceFlag, "--volume /dev"},
			Fix:         "mount the directory that is needed",
			References:  []string{"CIS Docker 5.17"},
			observe: func(p *prober) {
				openDevices(p, func(d device) bool { return strings.HasPrefix(d.id, "b ") })
			},
			judge: inDevices,
		},
	}
}

func notListed(e report.Evidence) string {
	return "not every device can be listed: " + first(e.Value, e.Errno)
}

// device is a device node.
type device struct{ path, id string }

// everyDevice are the nodes below /dev, those that are mounted elsewhere, and those
// below another /dev that is. With an error there may be more.
func everyDevice() ([]device, error) {
	found, err := devices("/dev")
	mounted, whole, merr := mounts()
	if merr == nil && !whole {
		merr = errors.New(mountinfo + " is not read to its end")
	}
	for _, m := range mounted {
		if m.point == "/dev" || strings.HasPrefix(m.point, "/dev/") {
			continue
		}
		d, isDevice := deviceAt(m.point)
		switch {
		case isDevice:
			found = append(found, d)
		case m.kind == "devtmpfs":
			more, derr := devices(m.point)
			found = append(found, more...)
			if errors.Is(derr, errMoreDevices) { // what cannot be listed cannot be opened by its name
				err = errors.Join(err, derr)
			}
		}
	}
	return found, errors.Join(err, merr)
}

// deviceAt is the node at a path, if it is one.
func deviceAt(path string) (device, bool) {
	var s unix.Stat_t
	if unix.Lstat(path, &s) != nil {
		return device{}, false
	}
	kind, ok := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b"}[s.Mode&unix.S_IFMT]
	return device{path, fmt.Sprintf("%s %d:%d", kind, unix.Major(s.Rdev), unix.Minor(s.Rdev))}, ok
}

// mostDevices is how many nodes are looked for below one directory.
const mostDevices = 4096

var errMoreDevices = fmt.Errorf("there are more than %d", mostDevices)

// devices are the nodes below a directory. With errMoreDevices there are others.
func devices(dir string) (list []device, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if path == dir {
				return err
			}
			return nil // what cannot be listed cannot be opened by its name
		}
		if d.Type()&fs.ModeDevice == 0 {
			return nil
		}
		if found, ok := deviceAt(path); ok {
			if len(list) == mostDevices {
				return errMoreDevices
			}
			list = append(list, found)
		}
		return nil
	})
	return list, err
}

const noDevice = "no such device"

// openDevices opens, without reading or writing, those that are wanted.
func openDevices(p *prober, want func(device) bool) {
	found, err := everyDevice()
	found = slices.DeleteFunc(found, func(d device) bool { return !want(d) })
	switch {
	case openOne(p, found):
	case err != nil:
		p.add(foundDevices, "", err)
	case len(found) == 0:
		p.add(foundDevices, noDevice, nil)
	}
}

// openOne opens one device after the other until one opens, or could be opened for
// writing. The evidence has the first of them, and each that ends in another way.
func openOne(p *prober, found []device) bool {
	more := map[int]int{}
	for _, d := range found {
		// For reading: some devices do something when they are opened for writing and
		// closed again, and access(2) asks the device cgroup and the mode as open(2) does.
		flags := []int{unix.O_RDONLY}
		if d.id == "c 1:11" { // what dmesg_restrict guards is reading
			flags = append(flags, unix.O_WRONLY)
		}
		for _, f := range flags {
			if p.open(d.path, f) == nil {
				return true
			}
			last := len(p.o.Calls) - 1
			errno := p.o.Calls[last].Errno
			like := slices.IndexFunc(p.o.Calls[:last], func(e report.Evidence) bool { return e.Errno == errno })
			if last >= maxCalls/2 && like >= 0 {
				p.o.Calls = p.o.Calls[:last]
				more[like]++
			}
		}
		if writableDevice(d.path) {
			if len(p.o.Calls) == maxCalls {
				p.o.Calls = p.o.Calls[:maxCalls-1]
			}
			p.add("faccessat("+d.path+", W_OK)", "", nil)
			return true
		}
	}
	for n, m := range more {
		p.o.Calls[n].Value = fmt.Sprintf("and %d more like it", m)
	}
	return false
}

// writableDevice reports whether a node could be opened for writing. access(2) does not
// look whether the mount is nodev.
func writableDevice(path string) bool {
	_, flags, _, err := fileSystem(path)
	return err == nil && flags&unix.ST_NODEV == 0 && unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, 0) == nil
}

func inDevices(v *view) outcome {
	if e, ok := v.call(foundDevices); ok {
		if e.Errno != "" {
			return isUnclear(notListed(e))
		}
		return isShut(e.Value)
	}
	return refused(v)
}
