package container

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// late makes a container whose program comes later, and returns what reads its
// output.
func late(t *testing.T, change func(*Config)) (*Container, *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{ID: "late", Dir: t.TempDir(), Spec: testSpec(), Layers: layersOf(t, busybox(t), testBase), Late: true}
	cfg.Stdio = [3]*os.File{nil, w, w}
	if change != nil {
		change(&cfg)
	}
	c, err := Create(context.Background(), cfg)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.Signal(9) == nil {
			c.Wait(context.Background())
		}
		c.Close()
		r.Close()
	})
	return c, r
}

// about is a script that prints what a process can tell of its confinement.
const about = `cat /proc/self/status | grep -e ^Cap -e ^NoNew -e ^Seccomp -e ^Groups -e ^Uid; cat /proc/self/mountinfo | cut -d' ' -f4-6,8-; for f in 0 1 2; do readlink /proc/self/fd/$f; done; ls /proc/self/fd; pwd; hostname; env | sort; umask`

// TestLate: a container whose program came later is in nothing different from one
// that had it from the start.
func TestLate(t *testing.T) {
	args, env := []string{"sh", "-c", about}, []string{"PATH=/bin", "GREETING=hello world"}
	want, _ := run(t, func(c *Config) { c.Spec.Process.Env, c.User = env, "user" }, args...)
	c, r := late(t, func(c *Config) { c.User = "user" })
	if err := c.Start(context.Background()); err == nil {
		t.Fatal("it starts without a program")
	}
	if err := c.SetProgram([]string{"nothing-like-this"}, env); !errors.Is(err, workload.ErrCommandNotFound) {
		t.Errorf("got %v, want ErrCommandNotFound", err)
	}
	if err := c.SetProgram(nil, env); err == nil {
		t.Error("no arguments are taken for a program")
	}
	if err := c.SetProgram(append(args, make([]string, 9000)...), env); !errors.Is(err, launch.ErrTooMuch) {
		t.Errorf("got %v, want ErrTooMuch", err)
	}
	if err := c.SetProgram(append(args, strings.Repeat("x", 600<<10)), env); !errors.Is(err, launch.ErrTooMuch) {
		t.Errorf("got %v, want ErrTooMuch", err)
	}
	if err := c.SetProgram(args, env); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(r)
	if exit, err := c.Wait(context.Background()); err != nil || exit.Code != 0 {
		t.Errorf("exit %+v, %v", exit, err)
	}
	if clean(string(out)) != clean(want) || !strings.Contains(want, "GREETING=hello world") {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
}

// clean leaves out what differs from run to run: the numbers of pipes, and the
// overlay's directories.
func clean(s string) string {
	return regexp.MustCompile(`pipe:\[\d+\]|lowerdir.*`).ReplaceAllString(strings.TrimSpace(s), "")
}

// TestLateNames: a container is named after it was made, and an execve that fails
// tells of the program that came.
func TestLateNames(t *testing.T) {
	c, r := late(t, nil)
	if err := c.SetHostname("later"); err != nil {
		t.Fatal(err)
	}
	if err := c.SetProgram([]string{"hostname"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	if out, _ := io.ReadAll(r); string(out) != "later\n" {
		t.Errorf("got %q", out)
	}
	host, err := os.Hostname()
	if err != nil || host == "later" {
		t.Errorf("this machine is called %q, %v", host, err)
	}
	layers := layersOf(t, busybox(t), testBase)
	if err := os.WriteFile(filepath.Join(layers.Upper, "broken"), []byte("#!/nowhere\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c, _ = late(t, func(c *Config) { c.Layers = layers })
	if err := c.SetProgram([]string{"/broken"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(context.Background()); !errors.Is(err, workload.ErrCommandNotFound) || !strings.Contains(err.Error(), "exec /broken: ") {
		t.Errorf("got %v", err)
	}
}
