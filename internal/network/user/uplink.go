package user

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// families are those by which the host has a way out.
type families struct{ v4, v6 bool }

// maxRoutes bounds what is read of a table of routes, in bytes.
const maxRoutes = 16 << 20

// uplink looks for the host's default routes: without one, the programs do not
// know which interface they stand for.
func uplink() (f families, err error) {
	// Not /proc/net, which is that of the process's first thread: it may have been
	// left in another namespace.
	if f.v4, err = tableHas("/proc/thread-self/net/route", default4); err != nil {
		return f, err
	}
	if f.v6, err = tableHas("/proc/thread-self/net/ipv6_route", default6); err != nil {
		return f, err
	}
	if !f.v4 && !f.v6 {
		return f, fmt.Errorf("%w: the user network of a host without a default route", workload.ErrUnsupported)
	}
	return f, nil
}

func tableHas(path string, is func([]string) bool) (bool, error) {
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return false, nil // no IPv6
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	return lineHas(io.LimitReader(f, maxRoutes), is)
}

func lineHas(r io.Reader, is func([]string) bool) (bool, error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if is(strings.Fields(lines.Text())) {
			return true, nil
		}
	}
	return false, lines.Err()
}

const up, reject = 0x1, 0x200 // RTF_UP, RTF_REJECT of linux/route.h

// default4 and default6 recognize lines of proc_net(5)'s tables.
func default4(f []string) bool {
	return len(f) > 7 && f[1] == "00000000" && f[7] == "00000000" && flags(f[3])&(up|reject) == up
}

func default6(f []string) bool {
	zero := strings.Repeat("0", 32)
	return len(f) > 9 && f[0] == zero && f[1] == "00" && f[9] != "lo" && flags(f[8])&(up|reject) == up
}

func flags(s string) uint32 {
	b, err := hex.DecodeString(strings.Repeat("0", max(0, 8-len(s))) + s)
	if err != nil || len(b) != 4 {
		return 0
	}
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// nameservers are those that the workload asks: addresses at which the process
// takes questions for the host's own.
func nameservers(f families) []netip.Addr {
	var has4, has6 bool
	for _, a := range hostNameservers() {
		has4, has6 = has4 || a.Is4(), has6 || a.Is6()
	}
	var out []netip.Addr
	if f.v4 && has4 {
		out = append(out, names4)
	}
	if f.v6 && has6 {
		out = append(out, names6)
	}
	return out
}

// maxNameservers are those of resolv.conf(5) that are looked at.
const maxNameservers = 3

var resolvConf = "/etc/resolv.conf" // tests have another

// hostNameservers are those that the host asks, and its programs.
func hostNameservers() (out []netip.Addr) {
	host, _ := os.ReadFile(resolvConf) // none is a host that asks nobody
	for line := range bytes.Lines(host) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 || fields[0] != "nameserver" || len(out) == maxNameservers {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil {
			out = append(out, a)
		}
	}
	return out
}
