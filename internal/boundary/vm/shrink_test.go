package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestMachineGivesMemoryBack: a machine that gave back what only its start
// needed goes on as if nothing had been: the same processes run, others can be
// started, and it ends as ever.
func TestMachineGivesMemoryBack(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine; make test-full runs it")
	}
	f := newFixture(t)
	guard(t)
	s := program("pause")
	p := f.prepare(t, s)
	p.Notice = func(line string) { t.Errorf("a notice: %s", line) }
	in, err := Boundary{}.Create(t.Context(), s, p)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Delete(context.Background()) //nolint:errcheck // again below
	if err := in.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	m := in.(*instance).machine
	ids, err := in.(boundary.Lister).Processes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-m.trimmed:
	case <-time.After(time.Minute):
		t.Fatal("nothing was given back within a minute")
	}
	if n := bootFilesInMemory(t, in.PID()); n > 256 {
		t.Errorf("%d KiB of the kernel and the initramfs are in QEMU's memory", n)
	}
	for want := range 3 {
		x, err := in.Exec(t.Context(), workload.Process{Args: []string{"/bin/program", "exit", strconv.Itoa(want)}, Cwd: "/", User: "0:0"}, boundary.Stdio{})
		if err != nil {
			t.Fatal(err)
		}
		if exit, err := x.Wait(t.Context()); err != nil || exit.Code != want {
			t.Errorf("%+v, %v; want %d", exit, err, want)
		}
		if err := m.vmm.Trim(); err != nil { // of one that has just worked
			t.Error(err)
		}
	}
	if now, err := in.(boundary.Lister).Processes(t.Context()); err != nil || !slices.Equal(now, ids) {
		t.Errorf("processes %v, %v; there were %v", now, err, ids)
	}
	if err := in.Delete(t.Context()); err != nil {
		t.Error(err)
	}
}

// bootFilesInMemory is how much of them QEMU has mapped, in KiB.
func bootFilesInMemory(t *testing.T, pid int) (kib int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	ours := false
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case strings.Contains(f[0], "-"):
			ours = f[len(f)-1] == "/kernel" || f[len(f)-1] == "/initramfs"
		case ours && f[0] == "Rss:":
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			kib += n
		}
	}
	return kib
}

// TestSparedIsTold: memory that was not given back is told in the log of the
// workload, and nothing else comes of it.
func TestSparedIsTold(t *testing.T) {
	var told []string
	m := &machine{notice: func(line string) { told = append(told, line) }}
	m.spared(nil)
	m.spared(errors.New("process_madvise: operation not permitted"))
	(&machine{}).spared(errors.New("nobody listens"))
	if len(told) != 1 || !strings.Contains(told[0], "keeps memory") || !strings.Contains(told[0], "not permitted") {
		t.Errorf("%q", told)
	}
}

// TestUntrim: a machine that ends at once gives nothing back, and waits for
// nothing; ending it again is no harm.
func TestUntrim(t *testing.T) {
	var early, late machine
	early.untrim()
	early.trimLater()
	late.trimLater()
	late.untrim()
	late.untrim()
	if early.trim != nil {
		t.Error("what was ended before is to give memory back")
	}
	select {
	case <-late.trimmed:
	default:
		t.Error("whoever waits for it waits for ever")
	}
}
