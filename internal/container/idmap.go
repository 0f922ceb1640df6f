package container

import (
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// idMap translates IDs of a user namespace to IDs of the host. Without
// mappings every ID stands for itself.
type idMap struct {
	uids, gids []specs.LinuxIDMapping
}

func (m idMap) active() bool { return len(m.uids) > 0 || len(m.gids) > 0 }

// uid returns the host ID of a user inside.
func (m idMap) uid(id uint32) (uint32, error) { return translate("user", m.uids, id) }

// gid returns the host ID of a group inside.
func (m idMap) gid(id uint32) (uint32, error) { return translate("group", m.gids, id) }

// noID is -1, which setresuid(2) and chown(2) do not set: a process that is to
// run as this user would stay root.
const noID = 1<<32 - 1

func translate(what string, mappings []specs.LinuxIDMapping, id uint32) (uint32, error) {
	if id == noID {
		return 0, fmt.Errorf("%s ID %d is reserved: the kernel takes it for \"leave as it is\"", what, id)
	}
	if len(mappings) == 0 {
		return id, nil
	}
	for _, m := range mappings {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + (id - m.ContainerID), nil
		}
	}
	return 0, fmt.Errorf("%s ID %d is outside the ID range of the user namespace", what, id)
}

// text is what the kernel reads from uid_map and gid_map (user_namespaces(7)).
func mapText(mappings []specs.LinuxIDMapping) string {
	var b strings.Builder
	for _, m := range mappings {
		fmt.Fprintf(&b, "%d %d %d\n", m.ContainerID, m.HostID, m.Size)
	}
	return b.String()
}

// checkMappings refuses what the kernel would refuse with a bare EINVAL.
func checkMappings(what string, mappings []specs.LinuxIDMapping) error {
	if len(mappings) > 340 { // UID_GID_MAP_MAX_EXTENTS, user_namespaces(7)
		return fmt.Errorf("%s: %d mappings, the kernel takes 340", what, len(mappings))
	}
	for i, m := range mappings {
		if m.Size == 0 {
			return fmt.Errorf("%s: mapping %d is empty", what, i)
		}
		if m.ContainerID+m.Size-1 < m.ContainerID || m.HostID+m.Size-1 < m.HostID {
			return fmt.Errorf("%s: mapping %d passes the largest ID", what, i)
		}
		for _, o := range mappings[:i] {
			if overlap(m.ContainerID, o.ContainerID, m.Size, o.Size) || overlap(m.HostID, o.HostID, m.Size, o.Size) {
				return fmt.Errorf("%s: mapping %d overlaps another", what, i)
			}
		}
	}
	if _, err := translate(what, mappings, 0); err != nil {
		return fmt.Errorf("%s: ID 0 must be mapped", what)
	}
	return nil
}

func overlap(a, b, sizeA, sizeB uint32) bool {
	return uint64(a) < uint64(b)+uint64(sizeB) && uint64(b) < uint64(a)+uint64(sizeA)
}
