package probe

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/probe/gate"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

// patience is how long one probe may take. What hangs is unknown.
const patience = 45 * time.Second

// gateCall is a call that is tried at the seccomp filter.
type gateCall struct {
	name string // "unshare(CLONE_NEWUSER)"
	call gate.Call
}

// prober is what one probe writes down while it tries.
type prober struct {
	targets Targets
	o       Observation
	table   []gate.Result // the native calls from 0, empty if the gate does not work
	sockets []gate.Result // socket(2) for each family, likewise
	noGate  string        // why
}

// Observe tries everything. It never fails: what cannot be tried is told.
func Observe(t Targets) *Observations {
	out := &Observations{Format: observationFormat, Nonce: t.Nonce}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		out.Kernel = clean(unix.ByteSliceToString(u.Release[:]))
	}
	probes := Probes()
	found, table, sockets, noGate := gates(probes)
	for n := range probes {
		p := &probes[n]
		if p.observe == nil && p.gates == nil {
			continue
		}
		o := Observation{Probe: p.ID, Calls: found[n]}
		if p.gates != nil && noGate != "" {
			o.Trouble = noGate
		}
		if p.observe != nil {
			seen := try(p, prober{targets: t, o: Observation{Probe: p.ID}, table: table, noGate: noGate})
			o.Calls = append(o.Calls, seen.Calls...)
			if o.Trouble == "" {
				o.Trouble = seen.Trouble
			}
		}
		if len(o.Calls) > maxCalls {
			o.Calls, o.Trouble = o.Calls[:maxCalls], "too much to report"
		}
		out.Tried = append(out.Tried, o)
	}
	out.Surface = counts(prober{table: table, sockets: sockets, noGate: noGate})
	return out
}

// try runs a probe, for a limited time. One that hangs keeps its goroutine until
// the program ends.
func try(p *Probe, r prober) Observation {
	done := make(chan Observation, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				r.o.Trouble = clean(fmt.Sprint("the prober failed: ", v))
			}
			done <- r.o
		}()
		p.observe(&r)
	}()
	select {
	case o := <-done:
		return o
	case <-time.After(patience):
		return Observation{Probe: p.ID, Trouble: fmt.Sprintf("it did not end within %v", patience)}
	}
}

// gates tries all calls of all probes at the filter, the whole table of this
// architecture, and the families of sockets.
func gates(probes []Probe) (found [][]report.Evidence, table, sockets []gate.Result, noGate string) {
	calls := make([]gate.Call, gate.Last+1)
	for n := range calls {
		calls[n].Number = uint32(n)
	}
	for _, g := range familyCalls() {
		calls = append(calls, g.call)
	}
	for _, p := range probes {
		for _, g := range p.gates {
			calls = append(calls, g.call)
		}
	}
	results, err := gate.Try(calls)
	found = make([][]report.Evidence, len(probes))
	if err != nil {
		return found, nil, nil, clean(err.Error())
	}
	table, results = results[:gate.Last+1], results[gate.Last+1:]
	sockets, results = results[:families], results[families:]
	for n, p := range probes {
		for _, g := range p.gates {
			found[n] = append(found[n], atGate(g.name, results[0]))
			results = results[1:]
		}
	}
	return found, table, sockets, ""
}

// What a gate's evidence says.
const (
	gatePasses  = "passes the filter"
	gateRefused = "the filter refuses it"
	gateKills   = "the filter kills the process"
	gateUnknown = "unknown: "
)

func atGate(name string, r gate.Result) report.Evidence {
	e := report.Evidence{Call: name}
	switch r.Verdict {
	case gate.Passes:
		e.Value = gatePasses
	case gate.Refused:
		e.Value = gateRefused
		if r.Errno != 0 {
			e.Errno = errnoName(r.Errno)
		}
	case gate.Kills:
		e.Value = gateKills
	default:
		e.Value = clean(gateUnknown + r.Reason)
	}
	return e
}

// errnoName is "EPERM", or a number for an error without a name.
func errnoName(e syscall.Errno) string {
	if name := unix.ErrnoName(e); name != "" {
		return name
	}
	return "E" + strconv.Itoa(int(e))
}

// add writes down what came of a call.
func (p *prober) add(call, value string, err error) {
	e := report.Evidence{Call: clean(call), Value: clean(value)}
	if err != nil {
		var errno syscall.Errno
		if errors.As(err, &errno) {
			e.Errno = errnoName(errno)
		} else {
			e.Errno = "error"
			e.Value = clean(err.Error())
		}
	}
	p.o.Calls = append(p.o.Calls, e)
}

// trouble ends a probe without a conclusion.
func (p *prober) trouble(format string, args ...any) {
	p.o.Trouble = clean(fmt.Sprintf(format, args...))
}

// The ways in which files are opened. None waits, takes a terminal, truncates or
// makes anything.
var openFlags = map[int]string{unix.O_RDONLY: "O_RDONLY", unix.O_WRONLY: "O_WRONLY", unix.O_PATH: "O_PATH"}

// open opens and closes a file, without reading or writing.
func (p *prober) open(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err == nil {
		unix.Close(fd)
	}
	p.add(openCall(path, flags), "", err)
	return err
}

func openCall(path string, flags int) string { return "openat(" + path + ", " + openFlags[flags] + ")" }

func readCall(path string) string { return "read(" + path + ")" }

// read returns the beginning of a file. The evidence has the first line.
func (p *prober) read(path string) string {
	text, err := beginning(path)
	line, _, _ := strings.Cut(text, "\n")
	if len(line) > 200 {
		line = line[:200]
	}
	p.add(readCall(path), strings.TrimSpace(line), err)
	return text
}

// beginning are the first 64 KiB of a file.
func beginning(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	return string(b), err
}

func linkCall(path string) string { return "readlink(" + path + ")" }

// link reads a symbolic link.
func (p *prober) link(path string) string {
	to, err := os.Readlink(path)
	p.add(linkCall(path), to, err)
	return to
}
