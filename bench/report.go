package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"
)

// report is everything that was found out.
type report struct {
	dir        string
	machine    machine
	loadAfter  string
	contenders []string
	absent     []string
	cases      []measured
	memory     []memoryResult
	vmMemory   []vmFootprint
}

func (r report) markdown() string {
	var b strings.Builder
	for _, l := range r.machine.lines {
		fmt.Fprintf(&b, "- %s\n", l)
	}
	fmt.Fprintf(&b, "- Load after: %s\n", r.loadAfter)
	for _, l := range r.contenders {
		fmt.Fprintf(&b, "- %s\n", l)
	}
	for _, l := range r.absent {
		fmt.Fprintf(&b, "- not measured: %s\n", cell(l))
	}
	for _, m := range r.cases {
		m.markdown(&b)
	}
	if len(r.memory) > 0 {
		memoryTable(&b, r.memory)
	}
	if len(r.vmMemory) > 0 {
		vmMemoryTable(&b, r.vmMemory)
	}
	// Where the machine keeps things is nobody's concern, and long.
	text := strings.ReplaceAll(b.String(), r.dir, "DIR")
	if here, err := os.Getwd(); err == nil && here != "/" {
		text = strings.ReplaceAll(text, here+"/", "")
	}
	return text
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond)) }

// markdown writes the case's table. Ratios are of medians, against the first
// contender.
func (m measured) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n### %s\n\n%s\n\n", m.title, m.about)
	if m.table != nil {
		m.table(b, m.results)
		return
	}
	rate, rule := "", ""
	if m.bytes > 0 {
		rate, rule = " MB/s |", "---:|"
	}
	fmt.Fprintf(b, "| | median ms | min | p90 | × first | rounds |%s |\n", rate)
	fmt.Fprintf(b, "|---|---:|---:|---:|---:|---:|%s---|\n", rule)
	var reference time.Duration
	for i, r := range m.results {
		if r.err != nil {
			fmt.Fprintf(b, "| %s | – | – | – | – | – |%s left out: %s |\n", r.label, strings.Repeat(" – |", min(1, len(rate))), cell(r.err.Error()))
			continue
		}
		if len(r.times) == 0 {
			continue
		}
		if i == 0 {
			reference = median(r.times)
		}
		ratio := "–"
		if reference > 0 {
			ratio = fmt.Sprintf("%.2f", float64(median(r.times))/float64(reference))
		}
		if m.bytes > 0 {
			rate = fmt.Sprintf(" %.0f |", float64(m.bytes)/1e6/median(r.times).Seconds())
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %d |%s %s |\n", r.label, ms(median(r.times)),
			ms(quantile(r.times, 0)), ms(quantile(r.times, 0.9)), ratio, len(r.times), rate, r.note)
	}
}

func memoryTable(b *strings.Builder, results []memoryResult) {
	fmt.Fprintf(b, "\n### %s\n\n", memoryTitle)
	fmt.Fprintf(b, "Proportional set size, MB, of processes only (no kernel memory), %v after the start of a workload that "+
		"sleeps. \"Beside\" is what the engine keeps running for the workload; daemons serve all workloads and are what they "+
		"hold with one running.\n\n", settle)
	fmt.Fprintf(b, "| | inside | beside one | beside each of %d | daemons | processes beside one |\n", crowd)
	fmt.Fprintln(b, "|---|---:|---:|---:|---:|---|")
	mb := func(n int64) string { return fmt.Sprintf("%.1f", float64(n)/1e6) }
	for _, r := range results {
		if r.err != nil {
			fmt.Fprintf(b, "| %s | – | – | – | – | left out: %s |\n", r.label, cell(r.err.Error()))
			continue
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s |\n", r.label, mb(r.one.inside), mb(r.one.beside),
			mb(r.many.beside/crowd), mb(r.one.daemons), strings.Join(r.processes, ", "))
	}
}

// cell keeps text from outside within one cell of a table.
func cell(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	return strings.ReplaceAll(s, "|", "\\|")
}

// insert replaces what stands between the markers of a Markdown file.
func insert(path, text string) error {
	const begin, end = "<!-- bench:begin -->\n", "<!-- bench:end -->"
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, rest, ok := bytes.Cut(old, []byte(begin))
	_, tail, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return fmt.Errorf("%s has no lines %q and %q", path, strings.TrimSpace(begin), end)
	}
	return os.WriteFile(path, fmt.Appendf(nil, "%s%s%s%s%s", head, begin, text, end, tail), 0o644)
}
