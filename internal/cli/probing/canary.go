// Package probing is the host's half of looking at a boundary from inside: it puts
// up what the prober looks for, runs the prober in a workload through the engine,
// takes what it says with limits, checks that against what the host itself sees of
// the workload, and judges.
package probing

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/seed-f5e3b97b/bulkhead/internal/probe"
	"golang.org/x/sys/unix"
)

// Canaries are what a workload must not find: files, a shared memory segment,
// services on loopback and on an abstract socket, all of this process.
type Canaries struct {
	Targets probe.Targets

	record    string // the directory that they are written down in
	left      left
	listeners []net.Listener
	serving   sync.WaitGroup
}

// PutUp makes them. Each holds or says a word that nobody else knows. What this
// host cannot have, such as IPv6, is left out. What outlives this process is written
// down before in a directory, for Clear.
func PutUp(record string) (_ *Canaries, err error) {
	c := &Canaries{record: record}
	c.left = left{Key: randomKey(), PID: os.Getpid()}
	for _, parent := range append([]string{os.TempDir()}, fileDirs...) {
		c.left.Dirs = append(c.left.Dirs, filepath.Join(parent, canaryPrefix+rand.Text()))
	}
	if err := c.left.write(record); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.TakeDown())
		}
	}()
	c.Targets.Nonce, c.Targets.Token = rand.Text(), rand.Text()
	for n, dir := range c.left.Dirs {
		if err := c.putUpFile(dir); err != nil && n == 0 {
			return nil, err
		}
	}
	// A page of shared memory that only its own user may use.
	if _, err := unix.SysvShmGet(c.left.Key, os.Getpagesize(), unix.IPC_CREAT|unix.IPC_EXCL|shmMode); err == nil {
		c.Targets.ShmKey = uint32(c.left.Key)
	}
	name := canaryPrefix + rand.Text()
	if l, err := net.Listen("unix", "@"+name); err == nil {
		c.Targets.Abstract = name
		c.serve(l)
	}
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		if l, err := net.Listen("tcp", address); err == nil {
			c.Targets.Loopback = append(c.Targets.Loopback, l.Addr().String())
			c.serve(l)
		}
	}
	return c, nil
}

// fileDirs are where files are put up beside the one for temporary files: each is seen
// through mounts that do not show the others.
var fileDirs = []string{"/run", "/var/tmp"}

func (c *Canaries) putUpFile(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	name := filepath.Join(dir, "canary")
	if err := os.WriteFile(name, []byte(c.Targets.Token+"\n"), 0o600); err != nil {
		return err
	}
	// Whoever gets at the directory from a workload is to see the file, whatever
	// user he is.
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(name, 0o644)); err != nil {
		return err
	}
	c.Targets.Files = append(c.Targets.Files, name)
	return nil
}

// randomKey is the key of a segment that nobody else has.
func randomKey() int {
	var b [4]byte
	_, _ = rand.Read(b[:])                                  // it never fails (crypto/rand)
	return int(binary.NativeEndian.Uint32(b[:])>>1 | 1<<16) // positive, and not IPC_PRIVATE
}

// serve tells everybody who connects the token.
func (c *Canaries) serve(l net.Listener) {
	c.listeners = append(c.listeners, l)
	c.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, c.Targets.Token) // whoever left wants nothing
			conn.Close()
		}
	})
}

// TakeDown removes them all.
func (c *Canaries) TakeDown() error {
	var errs []error
	for _, l := range c.listeners {
		errs = append(errs, l.Close())
	}
	c.serving.Wait()
	return errors.Join(append(errs, Clear(c.record))...)
}
