package acceptance

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

// memoryCgroups is where the kernel accounts memory, and the name of the file
// with the limit: v1 or v2.
func memoryCgroups() (kind, mount, limit string) {
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err == nil {
		return "-t cgroup -o memory", "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
	}
	return "-t cgroup2", "/sys/fs/cgroup", "memory.max"
}

// within returns a command line whose workloads and their supervisors have so many
// bytes of memory between them: to the command, a cgroup with that limit is the
// root of all others. The command itself is not in it.
func (w *world) within(memory int64) func(args ...string) *exec.Cmd {
	w.Helper()
	kind, mount, limit := memoryCgroups()
	dir := fmt.Sprintf("%s/bulkhead-acceptance-%d", mount, os.Getpid())
	if err := os.Mkdir(dir, 0o755); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		// What the commands made there for all of their workloads.
		for _, below := range []string{"/bulkhead/supervisors", "/bulkhead", ""} {
			if err := os.Remove(dir + below); err != nil && !errors.Is(err, os.ErrNotExist) {
				w.Error(err)
			}
		}
	})
	if err := os.WriteFile(filepath.Join(dir, limit), []byte(strconv.FormatInt(memory, 10)), 0o644); err != nil {
		w.Fatal(err)
	}
	script := fmt.Sprintf(`echo $$ >%s/cgroup.procs && exec unshare --cgroup --mount sh -c '
		echo $$ >%s/cgroup.procs && umount -l %s && mount %s none %s && exec "$@"' - "$@"`, dir, mount, mount, kind, mount)
	return func(args ...string) *exec.Cmd {
		cmd := w.command(args...)
		cmd.Args = append([]string{"sh", "-c", script, "-"}, append([]string{cmd.Path}, args...)...)
		cmd.Path = "/bin/sh"
		return cmd
	}
}

// TestMachinesWithoutMemory starts fifty machines at once where there is memory for
// some. Those that get none say so, with an exit code of their own; the others run
// to their end, as does one that has memory elsewhere; and the template that all go
// on from stays.
func TestMachinesWithoutMemory(t *testing.T) {
	slowly(t)
	w := newWorld(t).withMachines()
	if err := os.Remove(w.root + "/templates"); err != nil { // the shared ones
		t.Fatal(err)
	}
	other := w.start("neighbour", "--boundary", "vm", "--network", "none", "--memory", "64m", "box", "sleep", "1000")
	one := []string{"run", "-i", "--rm", "--boundary", "vm", "--network", "none", "--memory", "32m", "box", "sh", "-c", "echo up; cat"}
	w.ok(one...)
	templates := func() string { return w.ok("template", "ls", "--format", "{{.ID}} {{.InUse}} {{.Status}}") }
	before := templates()

	const count = 50
	command := w.within(700 << 20)
	in, hold, err := os.Pipe() // whoever is up waits for its end
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	defer in.Close()
	outs, errs, codes := make([]lines, count), make([]bytes.Buffer, count), make([]int, count)
	ended := make([]atomic.Bool, count)
	var all sync.WaitGroup
	for i := range count {
		cmd := command(one...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &outs[i], &errs[i]
		all.Go(func() {
			codes[i] = exitCode(t, cmd.Run())
			ended[i].Store(true)
		})
	}
	w.await("each is up, or has ended", func() bool {
		for i := range count {
			if !ended[i].Load() && !outs[i].has("up") {
				return false
			}
		}
		return true
	})
	hold.Close()
	all.Wait()
	lived, killed := 0, 0
	for i := range count {
		r := result{outs[i].String(), errs[i].String(), codes[i]}
		if r == (result{out: "up\n"}) {
			lived++
			continue
		}
		if r.out == "up\n" {
			killed++
			r.out = ""
		}
		if r.code != 125 {
			t.Errorf("machine %d: code %d, %q", i, r.code, r.err)
		}
		w.oneSentence(fmt.Sprintf("machine %d", i), r, "memory")
	}
	t.Logf("%d ran to their end, %d were ended later, %d did not start", lived, killed, count-lived-killed)
	if lived == 0 || lived == count {
		t.Errorf("%d of %d ran, which is no test", lived, count)
	}
	if got := templates(); got != before {
		t.Errorf("templates:\n%s\nwant\n%s", got, before)
	}
	if r := w.do("exec", "neighbour", "echo", "here"); r.out != "here\n" || r.code != 0 {
		t.Errorf("the neighbour: %+v", r)
	}
	w.wantOnly(other)
}
