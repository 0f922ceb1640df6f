// Package acceptance tests the product as a user meets it: the built programs,
// started as processes of their own, behind the real container boundary. What
// can be tested closer to the code is tested there; here is what only the whole
// shows: many runs in a row, processes killed from outside, full disks, limits
// seen from inside, real terminals.
//
// $BULKHEAD_BIN names the directory of the programs; without it they are built
// first. With -short the same tests repeat less, and those that only wait are
// skipped.
package acceptance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/vm/vmtest"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/nettest"
	"github.com/seed-f5e3b97b/bulkhead/tests/programs"
)

// bin is the directory of the programs, imageTar the root file system of the
// image "box".
var bin, imageTar string

func TestMain(m *testing.M) {
	nettest.Isolate(func() {
		if os.Getenv("BULKHEAD_TIER") != "short" {
			vmtest.Fetch() // for tests that boot machines
		}
	})
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Println("not run: bulkhead needs root")
		return 1
	}
	dir, err := os.MkdirTemp("", "accept")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(dir)
	if bin, err = programs.Find(dir); err != nil {
		fmt.Println(err)
		return 1
	}
	imageTar = filepath.Join(dir, "busybox.tar")
	if err := writeImage(imageTar); err != nil {
		fmt.Println("make the test image:", err)
		return 1
	}
	return m.Run()
}

// world is one state root with the image "box".
type world struct {
	testing.TB
	root string
}

// newWorld makes a state root; when the test is over, nothing of it may be left.
func newWorld(t testing.TB) *world {
	t.Helper()
	// Socket paths end at 107 bytes (unix(7)), so state lies in a short directory.
	dir, err := os.MkdirTemp("", "acc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return newWorldIn(t, dir)
}

func newWorldIn(t testing.TB, dir string) *world {
	t.Helper()
	w := &world{t, dir}
	leakcheck.Check(t, leakcheck.Options{Paths: []string{dir}, Wait: 10 * time.Second})
	w.ok("import", imageTar, "box")
	t.Cleanup(func() {
		if ids := strings.Fields(w.do("ps", "-aq").out); len(ids) > 0 {
			w.do(append([]string{"rm", "-f"}, ids...)...)
		}
		w.TB = t // a subtest may have taken it
		w.wantNothing()
	})
	return w
}

// result is what one command did.
type result struct {
	out, err string
	code     int
}

// limit is how long a command may take. It only ends what hangs: twenty
// emulated machines may start meanwhile.
const limit = 5 * time.Minute

// command prepares one command line.
func (w *world) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	w.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "bulkhead"), args...)
	cmd.Env = append(os.Environ(), "BULKHEAD_ROOT="+w.root, "TZ=UTC")
	return cmd
}

// do runs a command to its end.
func (w *world) do(args ...string) result {
	w.Helper()
	return w.feed("", args...)
}

// feed runs a command with standard input.
func (w *world) feed(in string, args ...string) result {
	w.Helper()
	cmd := w.command(args...)
	if in != "" {
		cmd.Stdin = strings.NewReader(in)
	}
	return w.finish(cmd)
}

// finish runs a prepared command to its end.
func (w *world) finish(cmd *exec.Cmd) result {
	w.Helper()
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	return result{out.String(), stderr.String(), exitCode(w, err)}
}

// exitCode is a command's, 128+n where signal n ended it.
func exitCode(t testing.TB, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &exit):
		t.Fatal(err)
	}
	if ws := exit.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return exit.ExitCode()
}

// ok runs a command that must succeed and returns its output without the last
// newline.
func (w *world) ok(args ...string) string {
	w.Helper()
	r := w.do(args...)
	if r.code != 0 {
		w.Fatalf("%s: exit code %d: %s%s", show(args), r.code, r.out, r.err)
	}
	return strings.TrimSuffix(r.out, "\n")
}

// inspect returns one field of a workload.
func (w *world) inspect(name, field string) string {
	w.Helper()
	return w.ok("inspect", "--type", "workload", "--format", "{{"+field+"}}", name)
}

// show shortens a command line for a message.
func show(args []string) string {
	s := strings.Join(args, " ")
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return s
}

// oneSentence is an error for a person: a first line "bulkhead: …", at most one
// line with the way out, and nothing of how it is done inside.
func (w *world) oneSentence(what string, r result, word string) {
	w.Helper()
	lines := strings.Split(strings.TrimSuffix(r.err, "\n"), "\n")
	if !strings.HasPrefix(lines[0], "bulkhead: ") || len(lines) > 2 || len(lines) == 2 && !strings.HasPrefix(lines[1], "  ") {
		w.Errorf("%s: not one sentence and a way out: %q", what, r.err)
	}
	if !strings.Contains(r.err, word) {
		w.Errorf("%s: want %q in %q", what, word, r.err)
	}
	if r.out != "" {
		w.Errorf("%s: unexpected output %q", what, r.out)
	}
	for _, inside := range []string{"= $", "-> $", "→", "panic", "goroutine"} {
		if strings.Contains(r.err, inside) {
			w.Errorf("%s: shows the insides: %q", what, r.err)
		}
	}
}

// wantNothing checks that no workload has left anything in the state and run
// roots, or a cgroup.
func (w *world) wantNothing() {
	w.Helper()
	w.wantOnly()
}

// wantOnly checks that only the workloads with these IDs have left something.
// What a killed command started may take a moment to end, and so do name servers,
// which the command that ends the last workload does not wait for.
func (w *world) wantOnly(ids ...string) {
	w.Helper()
	var left []string
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left = w.left(ids)
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			w.Errorf("left behind:\n\t%s", strings.Join(left, "\n\t"))
			return
		}
	}
}

func (w *world) left(ids []string) []string {
	// Networks stay, with the user IDs of their name servers; who was in them must
	// be gone. Events are kept.
	keep := map[string]bool{"lock": true, "boot": true, "events": true, "events.1": true, "networks": true, "network-bridge": true}
	for _, id := range ids {
		keep[id] = true
	}
	var left []string
	for _, dir := range []string{"workloads", "names", "idrange", "trash", "run", "run/networks/members"} {
		entries, err := os.ReadDir(filepath.Join(w.root, dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			w.Fatal(err)
		}
		for _, e := range entries {
			path := filepath.Join(w.root, dir, e.Name())
			to, _ := os.Readlink(path)
			id, _, _ := strings.Cut(e.Name(), "-") // of a member: <id>-<network>
			if !keep[e.Name()] && !keep[to] && !keep[id] {
				left = append(left, path)
			}
		}
	}
	if len(ids) == 0 {
		servers, err := filepath.Glob(filepath.Join(w.root, "run/networks/of/*/dns"))
		if err != nil {
			w.Fatal(err)
		}
		left = append(left, servers...)
	}
	return left
}

// start runs a workload in the background and returns its ID.
func (w *world) start(name string, args ...string) string {
	w.Helper()
	return w.ok(append([]string{"run", "-d", "--name", name}, args...)...)
}

// await repeats a check until it holds.
func (w *world) await(what string, check func() bool) {
	w.Helper()
	for end := time.Now().Add(limit); !check(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("never: %s", what)
		}
	}
}
