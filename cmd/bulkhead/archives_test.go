package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
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
		if err := writeFile(name, tt.write); !errors.Is(err, tt.err) {
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
	if err := writeFile(os.DevNull, say("x")); err != nil {
		t.Error(err)
	}
	if err := writeFile(filepath.Join(dir, "none", "x"), say("x")); !errors.Is(err, os.ErrNotExist) {
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
	if err := writeFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), write); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(name); err != nil || string(got) != "onetwo" {
		t.Errorf("it holds %q, %v", got, err)
	}
}
