package dns

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns/resolve"
)

// farFD is where descriptors lie that helpers get: above those that they are
// copied to, so that none is overwritten before it is copied.
const farFD = 64

// patience is how long a name server may take until it answers.
const patience = 30 * time.Second

// check finds what is wrong with a Config.
func (c Config) check() error {
	switch {
	case c.Network == "" || len(c.Network) > 200:
		return fmt.Errorf("%q is no name of a network", c.Network)
	case len(c.Listen) == 0 || len(c.Listen) > resolve.MaxListen:
		return fmt.Errorf("it listens on 1 to %d addresses, not %d", resolve.MaxListen, len(c.Listen))
	case c.Device == "" && c.NetNS == nil:
		return errors.New("neither an interface nor a namespace is given")
	case len(c.Upstream) > MaxUpstream:
		return fmt.Errorf("there are at most %d upstream servers, not %d", MaxUpstream, len(c.Upstream))
	case c.IDBase == 0 || c.IDBase > 1<<32-2-IDs:
		return fmt.Errorf("user ID %d is not one of its own", c.IDBase)
	}
	for _, a := range c.Listen {
		if !a.IsValid() || a.Zone() != "" || a.Is4In6() || a.IsUnspecified() {
			return fmt.Errorf("%s is no address to listen on", a)
		}
	}
	for _, u := range c.Upstream {
		if !u.IsValid() || u.Port() == 0 || u.Addr().Is4In6() || u.Addr().IsUnspecified() {
			return fmt.Errorf("%s is no upstream server", u)
		}
	}
	for _, s := range c.Subnets {
		if !s.IsValid() {
			return fmt.Errorf("%s is no subnet", s)
		}
	}
	dirs := []string{c.LeaseDir}
	if c.Peers != "" {
		if filepath.Join(c.Peers, c.Network, "leases") != filepath.Clean(c.LeaseDir) || strings.Contains(c.Network, "/") {
			return fmt.Errorf("%s is not %s/<network>/leases", c.LeaseDir, c.Peers)
		}
		dirs = append(dirs, filepath.Dir(c.LeaseDir), c.Peers)
	}
	for _, dir := range dirs {
		st, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if st.Mode().Perm()&0o005 != 0o005 {
			return fmt.Errorf("%s has mode %#o: the name server cannot read it", dir, st.Mode().Perm())
		}
	}
	return nil
}

// public tells whether names in the domain that is called like the network
// exist in the world: a network may be called dev, or app.
func (c Config) public() bool {
	top := strings.ToLower(c.Network[strings.LastIndexByte(c.Network, '.')+1:])
	_, icann := publicsuffix.PublicSuffix("x." + top)
	return icann
}

// fingerprint is the same for two name servers that would do the same.
func (c Config) fingerprint() (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(c.Program, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: c.Program, Err: err}
	}
	b, err := json.Marshal(struct {
		Config
		Device, Inode uint64
		Size, Changed int64
	}{c, st.Dev, st.Ino, st.Size, st.Mtim.Nano()})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// start starts both processes and records them. answers waits until they answer.
func start(ctx context.Context, c Config, print string) (p Process, answers func(context.Context) error, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	o, err := open(c)
	if err != nil {
		return p, nil, err
	}
	rec := record{}
	// Until it is let go on, both end when this process does: the resolver waits
	// for a word, and the dialer for the resolver.
	defer func() {
		if err != nil {
			o.close()
			err = errors.Join(err, rec.end(context.WithoutCancel(ctx)))
		}
	}()
	if rec.Boot, err = bootID(); err != nil {
		return p, nil, err
	}
	last, err := lastCapability()
	if err != nil {
		return p, nil, err
	}
	dialer := make(chan error, 1)
	go func() {
		if len(c.Upstream) == 0 && !c.Own {
			dialer <- nil
			return
		}
		h, err := c.dialer()
		if err == nil {
			rec.Dialer, err = o.launch(ctx, h, o.dialer, o.own, last)
		}
		dialer <- err
	}()
	h, err := c.resolver()
	if err == nil {
		rec.Resolver, err = o.launch(ctx, h, o.resolver, o.leases, last)
	}
	if err = errors.Join(err, <-dialer); err != nil {
		return p, nil, err
	}
	// Twice: what was not let go on may be about to end, as this process did.
	log := filepath.Join(c.Dir, logName)
	if err = rec.write(c.Dir); err == nil {
		if err = o.letGo(log); err != nil {
			return p, nil, err
		}
		rec.Config = print
		err = rec.write(c.Dir)
	}
	if err != nil {
		return p, nil, fmt.Errorf("record the name server: %w", err)
	}
	return Process{rec.Resolver.PID, rec.Dialer.PID}, func(ctx context.Context) error {
		defer o.close()
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if err := o.ready(ctx, log); err != nil {
			return c.failed(errors.Join(err, rec.end(context.WithoutCancel(ctx))))
		}
		return nil
	}, nil
}

// opened is everything that both helpers are given.
type opened struct {
	fds              []int // all of them, which close closes
	program, leases  int
	own              int // the network's leases alone, for the dialer; absent if it needs none
	tasks            []int
	cgroup           int   // absent without v2
	resolver, dialer []int // what they start with, by number
	control          *os.File
}

func (o *opened) close() {
	for _, fd := range o.fds {
		unix.Close(fd)
	}
	if o.control != nil {
		o.control.Close()
	}
}

func open(c Config) (_ *opened, err error) {
	o := &opened{cgroup: absent, own: absent}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	file := func(path string, flags int, mode uint32) int {
		if err != nil {
			return -1
		}
		fd, e := unix.Open(path, flags|unix.O_CLOEXEC, mode)
		if e != nil {
			err = &os.PathError{Op: "open", Path: path, Err: e}
			return -1
		}
		o.fds = append(o.fds, fd)
		return fd
	}
	pair := func(kind int) [2]int {
		if err != nil {
			return [2]int{}
		}
		fds, e := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
		if e != nil {
			err = os.NewSyscallError("socketpair", e)
			return fds
		}
		o.fds = append(o.fds, fds[0], fds[1])
		return fds
	}
	o.program = file(c.Program, unix.O_PATH, 0)
	root := c.LeaseDir
	if c.Peers != "" {
		root = c.Peers
	}
	o.leases = file(root, unix.O_PATH|unix.O_DIRECTORY, 0)
	if c.Own {
		o.own = file(c.LeaseDir, unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	log := file(filepath.Join(c.Dir, logName), unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	control, dial := pair(unix.SOCK_STREAM), pair(unix.SOCK_SEQPACKET)
	for _, dir := range c.Cgroups {
		if err == nil {
			err = o.openCgroup(dir)
		}
	}
	if err != nil {
		return nil, err
	}
	s, err := c.listen()
	if err != nil {
		return nil, err
	}
	o.fds = append(append(o.fds, s.udp...), s.tcp...)
	o.resolver = make([]int, resolve.FDOwn)
	for n := range o.resolver {
		o.resolver[n] = control[1]
		if n >= resolve.FDUDP { // a number by which one may send
			o.resolver[n] = s.udp[0]
		}
	}
	o.resolver[resolve.FDLog], o.resolver[resolve.FDDialer] = log, dial[0]
	copy(o.resolver[resolve.FDTCP:], s.tcp)
	copy(o.resolver[resolve.FDUDP:], s.udp)
	o.dialer = []int{dial[1], dial[1], log}
	o.fds = o.drop(control[0])
	if err = unix.SetNonblock(control[0], true); err != nil {
		unix.Close(control[0])
		return nil, os.NewSyscallError("fcntl", err)
	}
	o.control = os.NewFile(uintptr(control[0]), "name server")
	return o, nil
}

func (o *opened) drop(fd int) (rest []int) {
	for _, f := range o.fds {
		if f != fd {
			rest = append(rest, f)
		}
	}
	return rest
}

// launch starts one helper. With an error the process, if there is one, is to be
// ended.
func (o *opened) launch(ctx context.Context, h helper, own []int, leases, lastCap int) (process, error) {
	var made []int // until they are the program's
	defer func() {
		for _, fd := range made {
			unix.Close(fd)
		}
	}()
	var failed error
	far := func(fd int) int {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, farFD)
		if err != nil {
			failed = os.NewSyscallError("fcntl(F_DUPFD_CLOEXEC)", err)
			return -1
		}
		made = append(made, n)
		return n
	}
	pipe := func() (int, int) {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			failed = os.NewSyscallError("pipe2", err)
			return -1, -1
		}
		defer unix.Close(p[0])
		defer unix.Close(p[1])
		return far(p[0]), far(p[1])
	}
	h.statusRead, h.statusWrite = pipe()
	h.goRead, h.goWrite = pipe()
	h.program = far(o.program)
	if h.leases = leases; leases != absent {
		h.leases = far(leases)
	}
	copies := map[int]int{}
	for _, fd := range own {
		if _, ok := copies[fd]; !ok {
			copies[fd] = far(fd)
		}
		h.own = append(h.own, copies[fd])
	}
	for _, fd := range o.tasks {
		h.tasks = append(h.tasks, far(fd))
	}
	if h.cgroup = o.cgroup; h.cgroup != absent {
		h.cgroup = far(h.cgroup)
	}
	if failed != nil {
		return process{}, failed
	}
	made = nil
	p, err := plan(h, lastCap)
	if err != nil {
		return process{}, err
	}
	r, err := p.prog.Run(ctx, launch.Options{Child: p.pid, Detached: true})
	if err != nil {
		return process{}, err
	}
	status := r.Value(p.status)
	defer unix.Close(status)
	helper, err := describe(r.Pid())
	if err != nil {
		return process{}, err
	}
	return helper, launch.Outcome(status, p.prog.Failure)
}

// letGo lets the resolver go on.
func (o *opened) letGo(log string) error {
	// The last copies of what the helpers hold: when they end, this is told.
	for _, fd := range o.fds {
		unix.Close(fd)
	}
	o.fds = nil
	_, err := o.control.Write([]byte{1})
	return ended(err, log)
}

// ready waits until the resolver answers.
func (o *opened) ready(ctx context.Context, log string) error {
	stop := context.AfterFunc(ctx, func() { o.control.SetDeadline(time.Unix(1, 0)) }) //nolint:errcheck // it is a socket
	defer stop()
	_, err := o.control.Read(make([]byte, 1))
	if ctx.Err() != nil {
		return fmt.Errorf("wait for the name server: %w", ctx.Err())
	}
	return ended(err, log)
}

// ended says why a name server has ended, if that is what err means.
func ended(err error, log string) error {
	if errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return fmt.Errorf("the name server ended before it answered: %s", lastWords(log))
	}
	return err
}

// lastWords is what a helper said before it ended.
func lastWords(log string) string {
	f, err := os.Open(log)
	if err != nil {
		return "it gave no reason"
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, 1<<10)) //nolint:errcheck // what there is of it
	if len(b) == 0 {
		return "it gave no reason"
	}
	return fmt.Sprintf("%q", strings.TrimSpace(string(b)))
}

func lastCapability() (int, error) {
	const name = "/proc/sys/kernel/cap_last_cap"
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n < 0 || n > 63 {
		return 0, fmt.Errorf("%s holds %.20q", name, b)
	}
	return n, nil
}

// openCgroup opens what the helpers need to be in a cgroup: with v1 the file that
// takes a thread, which is cheaper (see cgroups(7)), with v2 the directory, to be
// born in. Who joins one of v2 by its files waits for all processors, for 10 ms and
// more.
func (o *opened) openCgroup(dir string) error {
	fd, err := unix.Open(filepath.Join(dir, "tasks"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		o.tasks = append(o.tasks, fd)
	} else if err == unix.ENOENT { //nolint:errorlint // raw errno
		if fd, err = unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
			o.cgroup = fd
		}
	}
	if err != nil {
		return &os.PathError{Op: "open cgroup", Path: dir, Err: err}
	}
	o.fds = append(o.fds, fd)
	return nil
}
