package fileserver_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/fileserver"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/volume"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
)

// program is bulkhead-fileserver, built once for all tests.
var program string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	// The test guest has no Go, but has the program.
	if built, err := exec.LookPath("bulkhead-fileserver"); err == nil && os.Getenv("BULKHEAD_GUEST") != "" {
		program = built
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "bulkhead-fileserver-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "bulkhead-fileserver")
	cmd := exec.Command("go", "build", "-o", program, "github.com/seed-f5e3b97b/bulkhead/cmd/bulkhead-fileserver")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the file server:", err)
		return 1
	}
	return m.Run()
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs FUSE in this machine's kernel:", err)
	}
}

// start serves source, a new directory by default, and returns it with the server.
func start(t testing.TB, cfg fileserver.Config) (string, *fileserver.Server) {
	t.Helper()
	needRoot(t)
	if cfg.Source == "" {
		cfg.Source = t.TempDir()
	}
	leakcheck.Check(t, leakcheck.Options{Paths: []string{cfg.Source}})
	cfg.Program = program
	if cfg.IDCount == 0 {
		cfg.IDCount = 1 << 16
	}
	s, err := fileserver.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error("close:", err)
		}
	})
	return cfg.Source, s
}

// mount serves source and mounts it in this machine, as a guest would.
func mount(t testing.TB, cfg fileserver.Config) (source, inside string, s *fileserver.Server) {
	t.Helper()
	source, s = start(t, cfg)
	inside = t.TempDir()
	if s.File() {
		inside = filepath.Join(inside, "file")
		if err := os.WriteFile(inside, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	v, err := volume.Mount(inside, volume.Options{File: s.File(), ReadOnly: cfg.ReadOnly})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Serve(s.Conn()); err != nil {
		v.Unmount()
		t.Fatal(err, s.Wait())
	}
	// A request that is never answered cannot be killed: cut it off instead, in a
	// time within which thousands are answered under emulation.
	cut := time.AfterFunc(10*time.Minute, func() { unix.Unmount(inside, unix.MNT_FORCE|unix.MNT_DETACH) })
	t.Cleanup(func() {
		cut.Stop()
		if err := v.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return source, inside, s
}
