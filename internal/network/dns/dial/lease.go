package dial

import (
	"encoding/json"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Port is where servers are asked.
const Port = 53

// OpenFlags are those with which the dialer opens a lease, and no other file.
const OpenFlags = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK

const (
	maxLease   = 64 << 10 // bytes of a file
	maxServers = 3        // resolv.conf(5)
)

// ownServers returns the servers of the workload that has an address. A lease that
// cannot be read has none.
func ownServers(leases string, a netip.Addr) []netip.Addr {
	fd, err := unix.Open(leases+"/"+a.String(), OpenFlags, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxLease {
		return nil
	}
	b := make([]byte, st.Size)
	for size := 0; size < len(b); {
		n, err := unix.Read(fd, b[size:])
		if err == unix.EINTR { //nolint:errorlint // raw errno
			continue
		}
		if err != nil || n == 0 {
			return nil
		}
		size += n
	}
	return Servers(b)
}

// Servers returns the servers that a lease, which is a file of network.Lease,
// names: at most three, and none of them this machine's own loopback, which is
// another than the workload's.
func Servers(lease []byte) (out []netip.Addr) {
	var l struct {
		Upstream []netip.Addr `json:"upstream"`
	}
	if json.Unmarshal(lease, &l) != nil {
		return nil
	}
	for _, a := range l.Upstream {
		if !Usable(a) || len(out) == maxServers {
			return nil // the number of a server must mean the same to everybody
		}
		out = append(out, a)
	}
	return out
}

// Usable tells whether a server can be asked from the machine's network as from a
// workload's: its loopback and link-local addresses are others.
func Usable(a netip.Addr) bool {
	return a.IsValid() && a.Zone() == "" && !a.Is4In6() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast()
}
