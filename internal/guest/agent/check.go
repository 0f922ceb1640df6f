package agent

import (
	"fmt"
	"path"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/rtnl"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Limits of a Create beside the length of its message.
const (
	maxFiles  = 64
	maxMounts = 256
	maxName   = 64
	maxNICs   = 8
	// Of one interface.
	maxAddresses   = 16
	minMTU, maxMTU = 1280, 65535 // the least is IPv6's, RFC 8200, section 5
)

// checkCreate looks at what becomes a path or a number here; the boundary
// checks the rest, as it does on the host.
func checkCreate(c *protocol.Create) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: create: %w", protocol.ErrProtocol, fmt.Errorf(format, args...))
	}
	if c == nil {
		return bad("nothing")
	}
	if _, err := workload.ParseID(string(c.Spec.ID)); err != nil {
		return bad("%w", err)
	}
	if err := checkName(c.Image); err != nil {
		return bad("image: %w", err)
	}
	if uint64(c.IDBase)+uint64(c.IDCount) > 1<<32-1 {
		return bad("%d IDs from %d", c.IDCount, c.IDBase)
	}
	if len(c.Files) > maxFiles || len(c.Spec.Mounts) > maxMounts {
		return bad("%d files and %d mounts, more than %d and %d", len(c.Files), len(c.Spec.Mounts), maxFiles, maxMounts)
	}
	for target := range c.Files {
		if !path.IsAbs(target) || path.Clean(target) != target {
			return bad("file target %q is not a clean absolute path", target)
		}
	}
	for i, name := range c.Volumes {
		if i < 0 || i >= len(c.Spec.Mounts) || c.Spec.Mounts[i].Type != "bind" {
			return bad("volume for mount %d, which is no bind mount", i)
		}
		if err := checkName(name); err != nil {
			return bad("volume: %w", err)
		}
	}
	if err := checkNICs(c.NICs); err != nil {
		return bad("%w", err)
	}
	return nil
}

// checkRewire looks at what becomes a name or a number.
func checkRewire(w *protocol.Rewire) error {
	if w == nil {
		return fmt.Errorf("%w: rewire: nothing", protocol.ErrProtocol)
	}
	for _, nics := range [][]protocol.NIC{w.Add, w.Remove, w.Route} {
		if err := checkNICs(nics); err != nil {
			return fmt.Errorf("%w: rewire: %w", protocol.ErrProtocol, err)
		}
	}
	if len(w.Files) > maxFiles {
		return fmt.Errorf("%w: rewire: %d files, more than %d", protocol.ErrProtocol, len(w.Files), maxFiles)
	}
	return nil
}

// checkNICs looks at what becomes a name, a part of a path or a number.
func checkNICs(nics []protocol.NIC) error {
	if len(nics) > maxNICs {
		return fmt.Errorf("%d network interfaces, more than %d", len(nics), maxNICs)
	}
	names, devices := map[string]bool{}, map[string]bool{}
	for _, n := range nics {
		if err := checkInterface(n.Name); err != nil {
			return err
		}
		for _, mac := range []string{n.MAC, n.Device} {
			if _, err := rtnl.ParseMAC(mac); err != nil {
				return err
			}
		}
		device := strings.ToLower(n.Device)
		if names[n.Name] || devices[device] {
			return fmt.Errorf("two network interfaces %s, or two with the device %s", n.Name, device)
		}
		names[n.Name], devices[device] = true, true
		if n.MTU < minMTU || n.MTU > maxMTU {
			return fmt.Errorf("network interface %s: MTU %d, not of %d to %d", n.Name, n.MTU, minMTU, maxMTU)
		}
		if len(n.Addresses) > maxAddresses || len(n.Gateways) > 2 {
			return fmt.Errorf("network interface %s: %d addresses and %d gateways, more than %d and 2", n.Name, len(n.Addresses), len(n.Gateways), maxAddresses)
		}
		for _, p := range n.Addresses {
			if !p.IsValid() || p.Addr().Zone() != "" {
				return fmt.Errorf("network interface %s: address %v", n.Name, p)
			}
		}
		for _, g := range n.Gateways {
			if !g.IsValid() || g.Zone() != "" {
				return fmt.Errorf("network interface %s: gateway %v", n.Name, g)
			}
		}
	}
	return nil
}

// checkInterface checks the name of an interface, as the kernel does in
// dev_valid_name, and a little more.
func checkInterface(s string) error {
	ok := s != "" && len(s) < 16 && s != "lo" && s[0] != '.'
	for _, c := range []byte(s) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.')
	}
	if !ok {
		return fmt.Errorf("name %.40q of a network interface", s)
	}
	return nil
}

// checkName checks a serial or a volume's name, which become parts of paths.
func checkName(s string) error {
	if s == "" || len(s) > maxName {
		return fmt.Errorf("name %.80q: want 1 to %d of a-z, 0-9 and -", s, maxName)
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("name %.80q: want 1 to %d of a-z, 0-9 and -", s, maxName)
		}
	}
	return nil
}
