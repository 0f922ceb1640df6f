package bridge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Options say what a Store may use beside its directories.
type Options struct {
	// DNSProgram is the path of bulkhead-dns; "" starts no name servers, and none
	// are told to workloads.
	DNSProgram string
	// Warn receives a sentence about each network that is left out because its record
	// is damaged, and what else is nobody's error; nil drops it. That rules were
	// flushed stays for who has one.
	Warn func(message string)
	// EndApart ends the process of a workload's user network, if there is one, before
	// the rule goes that keeps it out of networks, see KeepApart; nil is for who has
	// none to end.
	EndApart func(ctx context.Context, id workload.ID) error
	// CgroupParent is the cgroup below which name servers are, such as
	// "/bulkhead"; "" leaves them in that of the caller, with which they end.
	CgroupParent string
}

// Store is all networks of one state root. It may be used by any number of
// processes at once.
type Store struct {
	root, run string
	o         Options
	t         *tables
	warned    sync.Map // the names of networks, and of leases, that Warn was told of
}

// defaultRoot has the table names without a suffix.
const defaultRoot = "/var/lib/bulkhead"

// Open returns the networks below the state directory root and the run-time
// directory run, both absolute. Nothing is made before it is needed.
func Open(root, run string, o Options) (*Store, error) {
	if !filepath.IsAbs(root) || !filepath.IsAbs(run) {
		return nil, fmt.Errorf("open the networks of %q, %q: the directories must be absolute paths", root, run)
	}
	root, run = filepath.Clean(root), filepath.Clean(run)
	return &Store{root: root, run: run, o: o, t: newTables(tableName(root))}, nil
}

// tableName keeps the rules of several state roots apart: whoever makes its own
// anew leaves the others' alone.
func tableName(root string) string {
	if root == defaultRoot {
		return "bulkhead"
	}
	sum := sha256.Sum256([]byte(root))
	return "bulkhead-" + hex.EncodeToString(sum[:4])
}

// Step is called after each step that changes something, with its name. It is
// nil but in tests, which end the process there.
var Step func(name string)

func did(name string) {
	if Step != nil {
		stepping.Lock()
		defer stepping.Unlock()
		Step(name)
	}
}

var stepping sync.Mutex // calls of Step

func (s *Store) networks() string { return filepath.Join(s.root, "networks") }

// record is what is kept of a network.
func (s *Store) record(name string) string { return filepath.Join(s.networks(), name+".json") }

func (s *Store) running() string { return filepath.Join(s.run, "networks") }
func (s *Store) members() string { return filepath.Join(s.running(), "members") }

// active has a directory for each network.
func (s *Store) active() string { return filepath.Join(s.running(), "of") }

// leases has one file for each address of a network that is in use.
func (s *Store) leases(name string) string { return filepath.Join(s.active(), name, "leases") }
func (s *Store) cursor(name string) string { return filepath.Join(s.active(), name, "cursor") }

// used marks addresses that were chosen out of turn: a link named after each to
// the ID of the workload that had it.
func (s *Store) used(name string) string { return filepath.Join(s.active(), name, "used") }

// chosenMAC tells that a workload in the network has chosen its MAC address.
func (s *Store) chosenMAC(name string) string { return filepath.Join(s.active(), name, "chosen-mac") }

func (s *Store) server(name string) string { return filepath.Join(s.active(), name, "dns") }

// lock keeps everybody else out until unlock is called. It is a flock(2), so the
// kernel frees it when its holder dies. What takes the lock takes milliseconds.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	defer trace.Step(ctx, "lock taken").End()
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		if unlock, err = s.tryLock(); unlock != nil || err != nil {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the networks' lock: %w", ctx.Err())
		case <-time.After(pause):
		}
	}
}

// tryLock is lock for who does not wait: without an error, unlock is nil when
// somebody else has the lock.
func (s *Store) tryLock() (unlock func(), err error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("change networks: %w: it takes root", workload.ErrUnsupported)
	}
	for _, d := range []string{s.networks(), s.members()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("make the networks' directory: %w", err)
		}
	}
	f, err := os.OpenFile(filepath.Join(s.running(), "lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the networks: %w", err)
	}
	if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
		return func() { f.Close() }, nil
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
		return nil, nil
	}
	return nil, fmt.Errorf("lock the networks: %w", err)
}

// replace gives path a new content, whole or not at all. It is for what a reboot
// takes away: a power cut may leave it blank.
func replace(path string, content []byte) error { return replaceMode(path, content, 0o600) }

func replaceMode(path string, content []byte, mode os.FileMode) error {
	return put(path, content, mode, false)
}

// replaceDurably is replace for what must survive a power cut. It is on disk when
// replaceDurably returns, which takes milliseconds.
func replaceDurably(path string, content []byte) error { return put(path, content, 0o600, true) }

func put(path string, content []byte, mode os.FileMode, durable bool) error {
	dir := filepath.Dir(path)
	tmp := filepath.Join(dir, ".new-"+filepath.Base(path))
	if err := write(tmp, content, mode, durable); err != nil {
		os.Remove(tmp)
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	if !durable {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func write(path string, content []byte, mode os.FileMode, durable bool) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil && durable {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
