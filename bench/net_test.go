package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestParseTraffic(t *testing.T) {
	s, err := parseTraffic(`{"rate":2000000,"trips":10,"p50":0.00002,"p99":0.00009}` + "\n")
	want := sample{rate: 2e6, p50: 20 * time.Microsecond, p99: 90 * time.Microsecond}
	if err != nil || s != want {
		t.Errorf("got %+v, %v; want %+v", s, err, want)
	}
	for _, out := range []string{
		"", "bulkhead-meter: refused", `{}`, `{"rate":0,"trips":1,"p50":1,"p99":1}`, `{"rate":1,"trips":0,"p50":1,"p99":1}`, `{"rate":1,"trips":1,"p50":2,"p99":1}`,
	} {
		if s, err := parseTraffic(out); err == nil {
			t.Errorf("%q: %+v, want an error", out, s)
		}
	}
}

func TestTrafficTable(t *testing.T) {
	of := func(rates ...float64) (all []sample) {
		for _, r := range rates {
			all = append(all, sample{rate: r, p50: 10 * time.Microsecond, p99: 50 * time.Microsecond})
		}
		return all
	}
	var b strings.Builder
	trafficTable(&b, []result{
		{label: "first", samples: of(200e6, 100e6, 900e6)},
		{label: "second", note: "a note", samples: of(50e6, 150e6)},
		{label: "gone", err: errors.New("broken|pipe")},
	})
	for _, line := range []string{
		"| first | 200 | 100 | 900 | 1.00 | 10 | 50 | 3 |  |",
		"| second | 100 | 50 | 150 | 0.50 | 10 | 50 | 2 | a note |",
		`| gone | – | – | – | – | – | – | – | left out: broken\|pipe |`,
	} {
		if !strings.Contains(b.String(), line+"\n") {
			t.Errorf("no line %q in\n%s", line, b.String())
		}
	}
}

func TestProcessorTime(t *testing.T) {
	const stat = "12 (a) b) S 1 12 12 0 -1 4194560 5 6 7 8 10 20 300 4000 20 0 1 0 99 1 2"
	if got, err := processorTime(stat); err != nil || got != 4330*tick {
		t.Errorf("got %v, %v; want %v", got, err, 4330*tick)
	}
	for _, stat := range []string{"", "12 (a) S 1 2 3", "12 (a) S 1 12 12 0 -1 4194560 5 6 7 8 x 20 300 4000 20 0"} {
		if got, err := processorTime(stat); err == nil {
			t.Errorf("%q: %v, want an error", stat, got)
		}
	}
	own, err := os.ReadFile("/proc/" + strconv.Itoa(os.Getpid()) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := processorTime(string(own)); err != nil {
		t.Error(err)
	}
}

func TestCountProbes(t *testing.T) {
	if n, err := countProbes("self"); err != nil || n != 0 {
		if _, there := os.Stat(filepath.Join("/", healthFile)); there != nil {
			t.Errorf("without a file: %d, %v", n, err)
		}
	}
}

// TestSamplesOfRounds has only the rounds that count in the result.
func TestSamplesOfRounds(t *testing.T) {
	n := 0.0
	c := testcase{table: trafficTable, contenders: []contender{{sampled: func(context.Context) (sample, error) {
		n++
		return sample{rate: n}, nil
	}}}}
	r := c.measure(t.Context(), 3).results[0]
	if got := rates(r.samples); len(got) != 3 || got[0] != 2 || len(r.times) != 0 {
		t.Errorf("got samples %v and times %v, want those after the first round", got, r.times)
	}
}
