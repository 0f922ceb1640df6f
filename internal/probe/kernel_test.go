package probe

import (
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// TestSymbols: one symbol's address may be zero, and all are where they are hidden.
func TestSymbols(t *testing.T) {
	const zero = "0000000000000000 A fixed_percpu_data\n0000000000000000 A __per_cpu_start\n"
	for text, want := range map[string]report.Verdict{
		zero: report.Held,
		"":   report.Held, // masked
		zero + "0000000000001000 A cpu_debug_store\nffffffff81000000 T _text\n": report.Leaked,
		zero + "ffffffff81000000 T _text\n":                                     report.Leaked,
	} {
		if f := judged(NewContext(nil, nil), "kernel.symbols", report.Evidence{Call: readCall("/proc/kallsyms"), Value: symbol(text)}); f.Verdict != want {
			t.Errorf("%q: %s, want %s", text, f.Verdict, want)
		}
	}
}

// TestIDMap: every range counts, not the first alone.
func TestIDMap(t *testing.T) {
	for text, want := range map[string]report.Verdict{
		"0 0 4294967295": report.Leaked, "0 100000 65536": report.Held, "0 100000 5, 5 0 1": report.Leaked, "0 100000 5, 5 200000 1": report.Held,
		"1000 0 1": report.Leaked, "": report.Unknown, "0 100000": report.Unknown,
	} {
		if f := judged(NewContext(nil, nil), "namespaces.uid-map", report.Evidence{Call: readCall(uidMap), Value: text}); f.Verdict != want {
			t.Errorf("%q: %s, want %s", text, f.Verdict, want)
		}
	}
}
