package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestListening: sockets that a service manager passes on reach the container's first
// process, which is told of them, with further descriptors after them.
func TestListening(t *testing.T) {
	if args := os.Getenv("TEST_INVOKE"); args != "" {
		os.Exit(invoke(append([]string{"bulkhead-oci"}, strings.Fields(args)...), os.Stdin, os.Stdout, os.Stderr))
	}
	h := newHost(t)
	h.write(func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
		s.Linux.GIDMappings = s.Linux.UIDMappings
	}, "sh", "-c", "echo $LISTEN_FDS $LISTEN_PID; cat <&4; busybox readlink /proc/self/fd/3; busybox ls /proc/self/fd")
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "socket")})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	first, err := socket.File()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := os.Open(filepath.Join(h.bundle, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	run := func(files []*os.File, args string) (string, error) {
		cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" -test.run='^TestListening$'`, os.Args[0])
		cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "TEST_INVOKE=--root "+h.root+" run "+args+" --bundle "+h.bundle+" lifecycle-listening")
		cmd.ExtraFiles = files
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run([]*os.File{first, second}, "--preserve-fds 1")
	if err != nil || !strings.HasPrefix(out, "1 1\n{") || !strings.Contains(out, "}socket:[") || !strings.HasSuffix(out, "\n0\n1\n2\n3\n4\n5\n") {
		t.Errorf("got %q, %v", out, err)
	}
	if out, err := run([]*os.File{first}, "--preserve-fds 1"); err == nil || !strings.Contains(out, "descriptor 4 is to be preserved, but was not passed") {
		t.Errorf("with a descriptor less: got %q, %v, want it named", out, err)
	}
}

// TestPreserveTooMany: more descriptors than there are numbers are not none.
func TestPreserveTooMany(t *testing.T) {
	for _, n := range []string{"9223372036854775805", "9223372036854775807"} {
		c := &command{flags: values{"preserve-fds": {n}}}
		if got, err := c.preserved(0); err == nil || !strings.Contains(err.Error(), "was not passed") {
			t.Errorf("%s: got %d, %v", n, got, err)
		}
	}
}
