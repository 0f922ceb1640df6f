package main

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestSilentGuest has one workload that does not answer, beside one that does: the
// table comes without its figures, it is not asked again while it owes an answer,
// and the late answer is the next table's.
func TestSilentGuest(t *testing.T) {
	const silent, quick = "silent", "quick"
	answer := make(chan struct{})
	var asked atomic.Int32
	s := newSampler(func(_ context.Context, id workload.ID) (workload.Usage, error) {
		if id == silent {
			asked.Add(1)
			<-answer
		}
		return workload.Usage{Pids: 7, At: time.Now()}, nil
	})
	s.patience = 3 * time.Second // an answer that is there at once counts on a busy machine, too
	record := func(id workload.ID) sampled {
		return sampled{record: &engine.Record{Spec: workload.Spec{ID: id, Name: string(id)}}}
	}
	table := func() []statsRow {
		t.Helper()
		got := make(chan []statsRow, 1)
		go func() { got <- s.table(t.Context(), []sampled{record(silent), record(quick)}, true) }()
		select {
		case rows := <-got:
			return rows
		case <-time.After(30 * time.Second):
			close(answer)
			t.Fatal("the table waits for a workload that does not answer")
			return nil
		}
	}
	for range 3 {
		if rows := table(); rows[0].PIDs != "--" || rows[1].PIDs != "7" {
			t.Errorf("processes of silent and quick: %s, %s; want --, 7", rows[0].PIDs, rows[1].PIDs)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the silent one was asked %d times before it answered; want once", n)
	}
	close(answer)
	s.open.Wait()
	if rows := table(); rows[0].PIDs != "7" || asked.Load() != 1 {
		t.Errorf("after the late answer: %s processes, asked %d times; want 7 and once", rows[0].PIDs, asked.Load())
	}
	if rows := table(); rows[0].PIDs != "7" || asked.Load() != 2 {
		t.Errorf("then: %s processes, asked %d times; want 7 and twice", rows[0].PIDs, asked.Load())
	}
	s.open.Wait()
}

// TestUnmeasured has one that cannot be measured: it is in the table, and asked
// again for the next.
func TestUnmeasured(t *testing.T) {
	asked := 0
	s := newSampler(func(context.Context, workload.ID) (workload.Usage, error) {
		asked++
		return workload.Usage{}, errors.New("no figures")
	})
	gone := []sampled{{record: &engine.Record{Spec: workload.Spec{ID: "gone"}}, given: "it"}}
	for range 2 {
		if rows := s.table(t.Context(), gone, true); rows[0].MemUsage != "-- / --" || rows[0].Container != "it" {
			t.Errorf("row: %+v", rows[0])
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times; want twice", asked)
	}
}

// TestMemoryUnits: memory is shown in the units in which --memory takes it.
func TestMemoryUnits(t *testing.T) {
	memory := int64(256 << 20)
	r := &engine.Record{Spec: workload.Spec{Resources: workload.Resources{Memory: &memory}}}
	if got := newTenantRow(r, "acme", 0, time.Now()).Memory; got != "256MiB" {
		t.Errorf("a tenant of 256m has %q", got)
	}
	var b strings.Builder
	if err := writeInfo(&b, systemInfo{MemTotal: 16 << 30}); err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^Memory: +16GiB$`).MatchString(b.String()) {
		t.Errorf("a machine of 16 GiB: %s", b.String())
	}
}
