package timeline

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
)

const base = 7 * time.Hour

func at(ms float64) time.Duration { return base + time.Duration(ms*float64(time.Millisecond)) }

var phases = []trace.Phase{
	{Name: "run", By: "bulkhead", Begin: at(0), End: at(100)},
	{Name: "late", By: "supervisor", Parent: 1, Begin: at(50), End: at(100)},
	{Name: "early", By: "bulkhead", Parent: 1, Begin: at(0.04), End: at(25.06)},
	{Name: "within\x1b[2J", By: "agent", Parent: 2, Begin: at(60), End: at(60)},
	{Name: "the very end", By: "workload", Parent: 1, Begin: at(100), End: at(100)},
}

func TestTable(t *testing.T) {
	var b strings.Builder
	if err := Table(&b, phases); err != nil {
		t.Fatal(err)
	}
	want := `PHASE              BY             BEGIN        MS
run                bulkhead         0.0     100.0  ========================================
  early            bulkhead         0.0      25.0  ==========
  late             supervisor      50.0      50.0                      ====================
    within\x1b[2J  agent           60.0       0.0                          =
  the very end     workload       100.0       0.0                                         =
`
	if got := b.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestJSON(t *testing.T) {
	var b strings.Builder
	if err := JSON(&b, phases); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsRune(b.String(), 0x1b) {
		t.Errorf("the guest's escapes go to the terminal: %q", b.String())
	}
	var got struct {
		Phases []struct {
			Name, By        string
			Parent          int
			BeginMS, TookMS float64
		}
	}
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Phases) != len(phases) {
		t.Fatalf("got %+v", got)
	}
	if p := got.Phases[1]; p.Name != "early" || p.By != "bulkhead" || p.Parent != 1 || p.BeginMS != 0.04 || p.TookMS != 25.02 {
		t.Errorf("got %+v", p)
	}
	if p := got.Phases[3]; p.Parent != 3 { // of late, which is third now
		t.Errorf("got %+v", p)
	}
}

func TestNothing(t *testing.T) {
	var b strings.Builder
	if err := Table(&b, nil); err != nil || b.String() != "PHASE  BY     BEGIN        MS\n" {
		t.Errorf("got %q, %v", b.String(), err)
	}
	b.Reset()
	if err := JSON(&b, nil); err != nil || strings.Join(strings.Fields(b.String()), "") != `{"phases":[]}` {
		t.Errorf("got %q, %v", b.String(), err)
	}
}
