package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestWriteFile writes into a directory where others have put links.
func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	victim, name := filepath.Join(dir, "victim"), filepath.Join(dir, "a.tar")
	if err := os.WriteFile(victim, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{name, name + ".part"} {
		if err := os.Symlink(victim, link); err != nil {
			t.Fatal(err)
		}
	}
	say := func(s string) func(io.Writer) error {
		return func(w io.Writer) error { _, err := io.WriteString(w, s); return err }
	}
	broken := errors.New("broken")
	for _, tt := range []struct {
		write func(io.Writer) error
		err   error
	}{
		{say("one"), nil},
		{say("two"), nil},
		{func(w io.Writer) error { return errors.Join(say("three")(w), broken) }, broken},
	} {
		if err := writeFile(t.Context(), name, tt.write); !errors.Is(err, tt.err) {
			t.Errorf("got %v, want %v", err, tt.err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil || string(got) != "two" {
		t.Errorf("the file holds %q, %v", got, err)
	}
	if info, err := os.Lstat(name); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file is %v, %v; want a plain one that only its owner may read", info.Mode(), err)
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "precious" {
		t.Errorf("what a planted link names holds %q, %v", got, err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 3 {
		t.Errorf("in the directory are %v, %v", names, err)
	}
	if err := writeFile(t.Context(), os.DevNull, say("x")); err != nil {
		t.Error(err)
	}
	if err := writeFile(t.Context(), filepath.Join(dir, "none", "x"), say("x")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in no directory: %v", err)
	}
}

// TestWriteStandardOutput names it by a file that is one, too, with others' words
// before.
func TestWriteStandardOutput(t *testing.T) {
	name := filepath.Join(t.TempDir(), "out")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	was := os.Stdout
	os.Stdout = f
	defer func() { os.Stdout = was }()
	write := func(w io.Writer) error { _, err := io.WriteString(w, "two"); return err }
	if _, err := f.WriteString("one"); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(t.Context(), fmt.Sprintf("/proc/self/fd/%d", f.Fd()), write); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(name); err != nil || string(got) != "onetwo" {
		t.Errorf("it holds %q, %v", got, err)
	}
}

// TestWriteInterrupted writes to pipes that nobody reads, or opens, until somebody
// interrupts it.
func TestWriteInterrupted(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	endless := func(w io.Writer) error {
		for {
			if _, err := w.Write(make([]byte, 32<<10)); err != nil {
				return err
			}
		}
	}
	fifo := func(ctx context.Context) error { return writeFile(ctx, name, endless) }
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for what, write := range map[string]func(context.Context) error{
		"nobody opened it": fifo,
		"standard output":  func(ctx context.Context) error { return endless(interruptibleWriter(ctx, w)) },
		"nobody reads it": func(ctx context.Context) error {
			f, err := os.OpenFile(name, os.O_RDWR, 0) // opens without a writer
			if err != nil {
				return err
			}
			defer f.Close()
			return fifo(ctx)
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- write(ctx) }()
		time.AfterFunc(50*time.Millisecond, cancel)
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: got %v, want that it was canceled", what, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: still waiting", what)
		}
	}
	// What is still waiting for somebody who opens the FIFO must not outlive the test.
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// TestWriteUntil: what is written arrives whole and in order, and errors come back.
func TestWriteUntil(t *testing.T) {
	var b bytes.Buffer
	w := interruptibleWriter(t.Context(), &b)
	p := []byte("one")
	for range 2 {
		if n, err := w.Write(p); n != 3 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		copy(p, "two")
	}
	if b.String() != "onetwo" {
		t.Errorf("got %q", b.String())
	}
	r, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	r.Close()
	if _, err := interruptibleWriter(t.Context(), pipe).Write(p); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("a pipe without a reader: %v", err)
	}
}
