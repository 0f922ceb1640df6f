package probe

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

// engineSockets are where engines listen.
var engineSockets = []string{
	"/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock", "/run/crio/crio.sock",
	"/var/run/cri-dockerd.sock", "/run/buildkit/buildkitd.sock", "/run/libvirt/libvirt-sock",
}

// EngineSockets are the paths at which the prober looks for engines.
func EngineSockets() []string { return slices.Clone(engineSockets) }

// observeSockets connects, says nothing, and closes: where engines listen, and where
// they would if a directory of the host, or a socket, were mounted elsewhere.
func observeSockets(p *prober) {
	list, whole, err := mounts()
	p.addMounts(whole, err)
	for _, s := range engineSockets {
		p.add(connectCall(s), "", connectUnix(s))
	}
	tried := slices.Clone(engineSockets)
	for _, m := range list {
		for _, s := range socketsAt(&m) {
			if slices.Contains(tried, s) {
				continue
			}
			tried = append(tried, s)
			err := connectUnix(s)
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
				continue // no line for each that is not there
			}
			if len(p.o.Calls) == maxCalls {
				p.o.Calls[0].Value = cutShort
				return
			}
			value := ""
			if s == m.point && !isEngineSocket(m.root) && !isEngineSocket(m.point) {
				value = nameless
			}
			p.add(connectCall(s), value, err)
		}
	}
}

func connectCall(name string) string { return "connect(" + name + ")" }

// nameless marks a socket of the host whose name is no engine's.
const nameless = "a socket of another name"

func isEngineSocket(name string) bool {
	return slices.ContainsFunc(engineSockets, func(s string) bool { return path.Base(s) == path.Base(name) })
}

// socketsAt are the paths at which a mount may have an engine's socket: itself, or what
// is left of each below the directory.
func socketsAt(m *mount) (names []string) {
	if !m.carries() {
		return nil
	}
	var s unix.Stat_t
	if err := unix.Lstat(m.point, &s); err != nil {
		return nil
	}
	switch s.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		return []string{m.point}
	case unix.S_IFDIR:
		for _, e := range engineSockets {
			for _, rest := range ends(e) {
				names = append(names, path.Join(m.point, rest))
			}
		}
	}
	return names
}

func judgeSockets(v *view) outcome {
	var calls []report.Evidence
	var others []string
	for _, e := range v.calls() {
		switch {
		case e.Call == mountsRead:
		case e.Value == nameless && e.Errno == "":
			others = append(others, e.Call)
		default:
			// Nobody listens, or not for streams, as engines do.
			if e.Errno == "ECONNREFUSED" || e.Errno == "EPROTOTYPE" {
				e.Errno = "ENOENT"
			}
			calls = append(calls, e)
		}
	}
	out := attempts(calls)
	for _, e := range calls {
		if e.Errno == "" {
			out.points = append(out.points, strings.TrimSuffix(strings.TrimPrefix(e.Call, "connect("), ")"))
		}
	}
	if out.state != shut {
		return out
	}
	if len(others) > 0 {
		return isUnclear("somebody on the host listens whose name is no engine's: " + list(others))
	}
	return seenMounts(v, out)
}

// longestSocket is what fits into an address, unix(7).
const longestSocket = 107

func connectUnix(name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if len(name) > longestSocket {
		at, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(at)
		name = fmt.Sprintf("/proc/self/fd/%d", at)
	}
	return unix.Connect(fd, &unix.SockaddrUnix{Name: name})
}
