package agent

import (
	"fmt"
	"path"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Limits of a Create beside the length of its message.
const (
	maxFiles  = 64
	maxMounts = 256
	maxName   = 64
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
