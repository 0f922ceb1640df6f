// Package template keeps virtual machines that have booted and were saved, for
// others to go on from: clones. It knows files, not how they come about.
//
//	templates/
//	  <key>/            complete, or not there: made under another name, then renamed
//	    memory          the guest's memory, sparse
//	    state           everything else of the machine
//	    disk            what was on its writable disk, where it had one; sparse
//	    about.json      what it is, and the digests of these files
//	    seen            that they were as about.json says, in this boot of the host
//	    used            its time is that of the last use
//	  <key>.lock        held by who makes it
//	  making-<key>      unfinished
//	  asked/<key>       as many bytes as starts have asked for one that is not made yet
//
// The key stands for everything that a clone must have in common with the
// machine that was saved: whoever wants a template works it out, so one that is
// outdated is not found. What is found is verified: by its digests once in each
// boot of the host, after that by the times and inode numbers of the files, which
// nothing that writes to them leaves as they were. The files belong to root and
// nobody writes to them.
//
// A clone keeps the memory open, with a shared lock, so that it can be seen that
// the template is in use. Removing it takes nothing from a clone that runs.
package template

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys"
)

// Errors of templates.
var (
	// ErrNotFound tells that there is no such template.
	ErrNotFound = errors.New("no such template")
	// ErrDamaged tells that a template is not what was saved.
	ErrDamaged = errors.New("the template is damaged")
	// ErrInUse tells that clones of a template run.
	ErrInUse = errors.New("the template is in use")
)

// format is raised when the files mean something else.
const format = 1

// The files of a template.
const (
	memoryFile = "memory"
	stateFile  = "state"
	diskFile   = "disk"
	aboutFile  = "about.json"
	seenFile   = "seen"
	usedFile   = "used"
)

// keyLength is that of a key, in hexadecimal digits.
const keyLength = 2 * sha256.Size

// About is what is known of a template.
type About struct {
	Format int       `json:"format"`
	Key    string    `json:"key"`
	Made   time.Time `json:"made"`
	// Machine says, for people, what is in the key: "cpus", "memory", "kernel", ….
	Machine map[string]string `json:"machine"`
	// Hello is what the guest's agent has said to the host.
	Hello protocol.Hello `json:"hello"`
	// Memory is the size of the guest's memory in bytes.
	Memory int64 `json:"memory"`
	// MemoryDigest, StateDigest and DiskDigest are SHA-256, in hexadecimal, of the
	// files; the last is empty where there is no disk.
	MemoryDigest string `json:"memoryDigest"`
	StateDigest  string `json:"stateDigest"`
	DiskDigest   string `json:"diskDigest,omitempty"`
}

// Store is a directory of templates.
type Store struct {
	dir string
	// Clean removes what else there may be of a template that somebody was making
	// who was killed; nil where there is nothing else. Nobody makes it meanwhile.
	Clean func(key string) error
}

// New returns the store in dir, which need not exist.
func New(dir string) *Store { return &Store{dir: dir} }

func (s *Store) path(names ...string) string {
	return filepath.Join(append([]string{s.dir}, names...)...)
}

// checkKey refuses what is no key, before it becomes a part of a path.
func checkKey(key string) error {
	if _, err := hex.DecodeString(key); err != nil || len(key) != keyLength || strings.ToLower(key) != key {
		return fmt.Errorf("template key %.80q: want %d hexadecimal digits", key, keyLength)
	}
	return nil
}

// Files are those of a template that hold the machine.
type Files struct {
	RAM, State *os.File
	Disk       *os.File // nil where there is none
}

// each calls f for each file of a template, with a disk or without, with its name
// and its digest.
func (t *Template) each(disk bool, f func(name string, file **os.File, digest *string) error) error {
	err := f(memoryFile, &t.RAM, &t.MemoryDigest)
	if err == nil {
		err = f(stateFile, &t.State, &t.StateDigest)
	}
	if err == nil && disk {
		err = f(diskFile, &t.Disk, &t.DiskDigest)
	}
	return err
}

// hasDisk tells whether the machine had a writable disk.
func (a *About) hasDisk() bool { return a.DiskDigest != "" }

// Close closes the files that are open.
func (t *Files) Close() {
	for _, f := range []*os.File{t.RAM, t.State, t.Disk} {
		if f != nil {
			f.Close()
		}
	}
}

// Template is one that was opened, verified, to make a clone from: its files are
// read-only and at their beginning. It stays as it is whatever becomes of the store, until Close.
type Template struct {
	About
	Files
}

// Open finds a template and verifies it.
func (s *Store) Open(key string) (*Template, error) {
	t, err := s.open(key)
	if err != nil {
		return nil, err
	}
	if err := s.verify(t); err != nil {
		t.Close()
		return nil, err
	}
	now := time.Now()
	_ = os.Chtimes(s.path(key, usedFile), now, now) // who goes first when room is wanted
	return t, nil
}

func (s *Store) open(key string) (*Template, error) {
	about, err := s.about(key)
	if err != nil {
		return nil, err
	}
	t := &Template{About: about}
	err = t.each(t.hasDisk(), func(name string, f **os.File, _ *string) (err error) {
		if *f, err = os.OpenFile(s.path(key, name), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0); err != nil {
			*f = nil
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM) {
				return err // which says nothing of the file
			}
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return nil
	})
	if err == nil {
		if err = sys.MarkUsed(t.RAM); err != nil { // also by QEMU, to which it is given
			err = fmt.Errorf("%s: %w", t.RAM.Name(), err)
		}
	}
	if err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// about reads what is known of a template.
func (s *Store) about(key string) (a About, err error) {
	if err := checkKey(key); err != nil {
		return a, err
	}
	b, err := os.ReadFile(s.path(key, aboutFile))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(s.path(key)); err == nil {
			return a, fmt.Errorf("%w: it has no %s", ErrDamaged, aboutFile)
		}
		return a, fmt.Errorf("%w: %.12s", ErrNotFound, key)
	}
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fmt.Errorf("%w: %s: %w", ErrDamaged, aboutFile, err)
	}
	if a.Format != format || a.Key != key {
		return a, fmt.Errorf("%w: %s is of format %d, for the key %.12s", ErrDamaged, aboutFile, a.Format, a.Key)
	}
	return a, nil
}

// verify makes sure that the files are what was saved.
func (s *Store) verify(t *Template) error {
	now, err := t.seen()
	if err != nil {
		return err
	}
	if was, err := os.ReadFile(s.path(t.Key, seenFile)); err == nil && bytes.Equal(was, now) {
		return nil
	}
	err = t.each(t.hasDisk(), func(name string, f **os.File, saved *string) error {
		is, err := digest(*f)
		if err == nil && is != *saved {
			err = fmt.Errorf("%w: the file %s is not what was saved", ErrDamaged, name)
		}
		return err
	})
	if err != nil {
		return err
	}
	// Whoever wrote meanwhile is seen the next time. Where this cannot be kept, all
	// is read again then.
	_ = s.writeSeen(t.Key, now)
	return nil
}

// seen is what files are known by that were verified: this boot of the host, and
// what a write cannot leave as it was.
func (t *Template) seen() ([]byte, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Write(boot)
	err = t.each(t.hasDisk(), func(name string, f **os.File, _ *string) error {
		fi, err := (*f).Stat()
		if err != nil {
			return err
		}
		if !fi.Mode().IsRegular() {
			return fmt.Errorf("%w: %s is no regular file", ErrDamaged, (*f).Name())
		}
		if name == memoryFile && fi.Size() != t.About.Memory {
			return fmt.Errorf("%w: %s has %d bytes instead of %d", ErrDamaged, memoryFile, fi.Size(), t.About.Memory)
		}
		id, err := sys.Identity(fi)
		b.WriteString(id + "\n")
		return err
	})
	return b.Bytes(), err
}

func (s *Store) writeSeen(key string, b []byte) error {
	f, err := os.CreateTemp(s.path(key), seenFile)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), s.path(key, seenFile))
	}
	if err != nil {
		os.Remove(f.Name())
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// digest is the SHA-256 of a sparse file: of its size, and of where there are
// data, and what. What is not there reads as zeros. f is at its beginning then.
func digest(f *os.File) (string, error) {
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%d\n", fi.Size())
	zeros, buf := make([]byte, piece), make([]byte, piece)
	for at := int64(0); at < fi.Size(); {
		from, more, err := sys.NextData(f, at)
		if err != nil {
			return "", err
		}
		if !more {
			break
		}
		from = from / piece * piece
		b := buf[:min(piece, fi.Size()-from)]
		if _, err := io.ReadFull(io.NewSectionReader(f, from, int64(len(b))), b); err != nil {
			return "", fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		// A file system may keep zeros as data or as a hole.
		if !bytes.Equal(b, zeros[:len(b)]) {
			fmt.Fprintf(h, "%d %d\n", from, len(b))
			h.Write(b)
		}
		at = from + int64(len(b))
	}
	// Looking for data has moved the descriptor, from which others read on.
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// piece is how much is read and hashed at a time, in bytes.
const piece = 256 << 10
