package acceptance

import (
	"os"
	"strconv"
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
	all := make([]int, atOnce)
	for i := range all {
		all[i] = i
	}
	began := time.Now()
	parallel(atOnce, all, clone)
	t.Logf("%d at once, and the template: %v", atOnce, time.Since(began))
	w.wantNothing()
	began = time.Now()
	for n := range count {
		clone(n)
	}
	t.Logf("%d one after the other: %v", count, time.Since(began))
	w.wantNothing()
	if r := w.do("template", "ls", "--format", "{{.InUse}} {{.Status}}"); r.out != "no whole\n" {
		t.Errorf("templates: %q", r.out)
	}
}
