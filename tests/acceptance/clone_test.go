package acceptance

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// clonesVariable says how many clones TestClones starts one after the other.
const clonesVariable = "BULKHEAD_TEST_CLONES"

// TestClones starts clones one after the other, and then fifty at once, and looks
// whether they leave anything. All are of one template, which is made by those of
// the fifty that come first.
func TestClones(t *testing.T) {
	slowly(t)
	w := newWorld(t).withMachines()
	if err := os.Remove(w.root + "/templates"); err != nil { // the shared ones
		t.Fatal(err)
	}
	const atOnce = 50
	count := 30
	if s := os.Getenv(clonesVariable); s != "" {
		var err error
		if count, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	clone := func(n int) {
		if r := w.inMachine("--network", "none", "--memory", "32m", "box", "sh", "-c", "echo "+strconv.Itoa(n)); r.code != 0 || r.out != strconv.Itoa(n)+"\n" || r.err != "" {
			t.Errorf("clone %d: code %d, %q, %q", n, r.code, r.out, r.err)
		}
	}
	began := time.Now()
	parallel(atOnce, numbers(atOnce), clone)
	t.Logf("%d at once, and the template: %v", atOnce, time.Since(began))
	w.wantNothing()
	began = time.Now()
	for n := range count {
		clone(n)
	}
	t.Logf("%d one after the other: %v", count, time.Since(began))
	w.wantNothing()
	// One for all, and soon one of the image.
	if r := w.do("template", "ls", "--format", "{{.InUse}} {{.Status}}"); r.out != "no whole\n" && r.out != "no whole\nno whole\n" {
		t.Errorf("templates: %q", r.out)
	}
}

// numbers returns 0 to n-1.
func numbers(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// TestClonesOnLittleMemory starts fifty clones at once where there is memory for a
// few. Each prints what it should and ends with 0, or says that there was no memory
// and ends with 125. A clone outside, started before, goes on, the template stays,
// and nothing is left.
func TestClonesOnLittleMemory(t *testing.T) {
	slowly(t)
	w := newWorld(t).withMachines()
	sized := func(args ...string) []string {
		return append([]string{"run", "--boundary", "vm", "--network", "none", "--memory", "16m"}, args...)
	}
	if r := w.do(sized("--rm", "box", "true")...); r.code != 0 { // makes the template
		t.Fatalf("%+v", r)
	}
	templates := w.do("template", "ls", "--quiet").out
	neighbour := strings.TrimSpace(w.ok(sized("-d", "box", "sleep", "1000")...))

	const count, limit = 50, 1 << 30
	tight := enterTight(t, limit)
	results := make([]result, count)
	parallel(count, numbers(count), func(n int) {
		// Those that live hold their memory until all have been tried.
		results[n] = w.finish(tight(w.command(sized("--rm", "box", "sh", "-c", "echo "+strconv.Itoa(n)+"; sleep 10")...)))
	})
	lived := 0
	for n, r := range results {
		switch {
		case r.code == 0 && r.out == strconv.Itoa(n)+"\n" && r.err == "":
			lived++
		case r.code == 125 && (strings.Contains(r.err, "for want of memory") || strings.Contains(r.err, "not enough memory or time")) && (r.out == "" || r.out == strconv.Itoa(n)+"\n"):
		default:
			t.Errorf("clone %d: code %d, %q, %q", n, r.code, r.out, r.err)
		}
	}
	t.Logf("%d of %d lived", lived, count)
	if lived == 0 || lived == count {
		t.Error("which is no test")
	}
	if r := w.do("exec", neighbour, "echo", "here"); r.out != "here\n" {
		t.Errorf("the neighbour: %+v", r)
	}
	w.wantOnly(neighbour)
	if got := w.do("template", "ls", "--quiet").out; got != templates {
		t.Errorf("templates: %q, there were %q", got, templates)
	}
	if r := w.do(sized("--rm", "box", "echo", "again")...); r.code != 0 || r.out != "again\n" || r.err != "" {
		t.Errorf("with memory: %+v", r)
	}
	w.ok("rm", "-f", neighbour)
}

// enterTight makes a cgroup whose processes may have so much memory together, and
// returns what lets a command find it as the root of the cgroup file system. The
// command itself stays outside; its workloads do not.
func enterTight(t *testing.T, memory int64) func(*exec.Cmd) *exec.Cmd {
	t.Helper()
	root, file := "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		root, file = "/sys/fs/cgroup", "memory.max"
	}
	dir := filepath.Join(root, fmt.Sprintf("tight-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skip("no cgroup for memory: ", err)
	}
	t.Cleanup(func() {
		for _, d := range []string{"/bulkhead", "/holder", ""} {
			if err := os.Remove(dir + d); err != nil && !os.IsNotExist(err) {
				t.Errorf("left behind: %v", err)
			}
		}
	})
	if err := os.WriteFile(filepath.Join(dir, file), strconv.AppendInt(nil, memory, 10), 0o600); err != nil {
		t.Skip("no limit of memory: ", err)
	}
	// v2 wants no processes beside cgroups that have controllers: the holder moves on.
	holder := exec.Command("sh", "-c", fmt.Sprintf(`echo $$ >%[1]s/cgroup.procs && exec unshare -m -C sh -c '
		mount --bind %[1]s %[2]s && mkdir %[2]s/holder && echo $$ >%[2]s/holder/cgroup.procs && echo ready && exec cat'`, dir, root))
	in, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	holder.Stderr = &stderr
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); holder.Wait() })
	ready := make([]byte, 6)
	if n, _ := out.Read(ready); string(ready[:n]) != "ready\n" {
		t.Fatalf("cgroup namespace: %q", stderr.String())
	}
	return func(cmd *exec.Cmd) *exec.Cmd {
		nsenter, err := exec.LookPath("nsenter")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Args = append([]string{"nsenter", "-t", strconv.Itoa(holder.Process.Pid), "-m", "-C", "--", cmd.Path}, cmd.Args[1:]...)
		cmd.Path = nsenter
		return cmd
	}
}
