// Package initramfs writes the archive that a guest's kernel unpacks into its
// first root: the agent as /init, and the modules it loads before anything
// else. The same content gives the same bytes.
//
//	/init            the agent
//	/bin             bulkhead-init, if it is wanted
//	/modules/order   a path for each module, one a line, dependencies first
//	/modules/network the same, of those for a machine with a network device
//	/modules/*.ko    the modules, uncompressed
//	/dev/console     for what goes wrong before the agent has mounted /dev
//	/proc /sys /run /tmp /root   empty
package initramfs

import (
	"bytes"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// OrderFile is the path of the list of modules in the archive.
const OrderFile = "/modules/order"

// NetworkFile is that of the list of modules for a machine that has a network
// device.
const NetworkFile = "/modules/network"

// directories are made empty.
var directories = []string{"bin", "dev", "modules", "proc", "root", "run", "sys", "tmp"}

// Module is one to be loaded at boot.
type Module struct {
	Name    string // as lsmod shows it
	Content []byte // ELF, not compressed
	Network bool   // for a machine that has a network device
}

// Program is one of ours that the guest gets.
type Program struct {
	Path    string // within the archive, such as "init" for the agent
	Content io.ReaderAt
	Size    int64 // bytes
}

// Write writes the archive. Modules are listed in their order.
func Write(w io.Writer, programs []Program, modules []Module) error {
	var records []cpio.Record
	for _, dir := range directories {
		records = append(records, cpio.Directory(dir, 0o755))
	}
	// The kernel opens it as /init's standard streams.
	records = append(records,
		cpio.CharDev("dev/console", 0o600, 5, 1),
	)
	for _, p := range programs {
		if p.Size <= 0 || p.Size > 1<<31-1 {
			return fmt.Errorf("a program of %d bytes does not fit into the archive", p.Size)
		}
		records = append(records, cpio.Record{
			ReaderAt: io.NewSectionReader(p.Content, 0, p.Size),
			Info:     cpio.Info{Name: p.Path, Mode: cpio.S_IFREG | 0o755, FileSize: uint64(p.Size)},
		})
	}
	var order, network strings.Builder
	for _, m := range modules {
		file := path.Join("modules", m.Name+".ko")
		if m.Network {
			fmt.Fprintf(&network, "/%s\n", file)
		} else {
			fmt.Fprintf(&order, "/%s\n", file)
		}
		records = append(records, cpio.Record{
			ReaderAt: bytes.NewReader(m.Content),
			Info:     cpio.Info{Name: file, Mode: cpio.S_IFREG | 0o444, FileSize: uint64(len(m.Content))},
		})
	}
	records = append(records, cpio.StaticFile(strings.TrimPrefix(OrderFile, "/"), order.String(), 0o444))
	if network.Len() > 0 {
		records = append(records, cpio.StaticFile(strings.TrimPrefix(NetworkFile, "/"), network.String(), 0o444))
	}
	out := cpio.Newc.Writer(w)
	// Numbers instead of the host's inodes: the kernel takes equal numbers for
	// hard links, and the bytes must not change.
	for i, r := range records {
		r.Ino, r.NLink = uint64(i+1), 1
		if r.Mode&cpio.S_IFMT == cpio.S_IFDIR {
			r.NLink = 2
		}
		if err := out.WriteRecord(r); err != nil {
			return fmt.Errorf("write %s: %w", r.Name, err)
		}
	}
	return cpio.WriteTrailer(out)
}
