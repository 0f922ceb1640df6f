package probe

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// columns are the files of testdata that the matrix shows, and their headings.
var columns = []struct{ file, heading string }{
	{"container", "container"}, {"gvisor", "gvisor"}, {"vm", "vm"}, {"tenant", "tenant"}, {"docker", "Docker"}, {"docker-privileged", "Docker `--privileged`"},
}

// matrix are the recorded verdicts: for each probe one of each column.
type matrix struct {
	ids   []string
	cells map[string][]string
	// machine is where the last columns were recorded.
	machine string
}

const (
	// machineMark is before the machine in the first line of a file.
	machineMark = "# "
	insideMark  = ", inside alone"
)

func readMatrix() (*matrix, error) {
	m := &matrix{cells: map[string][]string{}}
	for n, c := range columns {
		f, err := os.Open(filepath.Join("testdata", c.file+".golden"))
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if machine, ok := strings.CutPrefix(lines.Text(), machineMark); ok {
				m.machine = machine
				continue
			}
			id, verdict, _ := strings.Cut(lines.Text(), " ")
			if n == 0 {
				m.ids = append(m.ids, id)
			}
			m.cells[id] = append(m.cells[id], strings.TrimSpace(verdict))
		}
		if err := cmp.Or(lines.Err(), f.Close()); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// isOpen and isShut tell verdicts as the files have them.
func isOpen(cell string) bool { return report.Verdict(strings.TrimSuffix(cell, insideMark)).Open() }

func isShut(cell string) bool {
	return cell == string(report.Held) || cell == string(report.NotApplicable)
}

func (m *matrix) heading(first string) string {
	row, rule := "| "+first+" |", "|---|"
	for _, c := range columns {
		row, rule = row+" "+c.heading+" |", rule+"---|"
	}
	return row + "\n" + rule + "\n"
}

// counts is the row of how many doors are open, and how many of them inside.
func (m *matrix) counts() string {
	row := "| open doors |"
	for n := range columns {
		all, inside := 0, 0
		for _, id := range m.ids {
			if cell := m.cells[id][n]; isOpen(cell) {
				all++
				inside += strings.Count(cell, insideMark)
			}
		}
		row += fmt.Sprintf(" %d", all)
		if inside > 0 {
			row += fmt.Sprintf(", %d of them inside", inside)
		}
		row += " |"
	}
	return row + "\n"
}

// table is the matrix as Markdown: doors with the same verdicts in one row, without
// those that are shut behind everything.
func (m *matrix) table() string {
	rows := map[string][]string{}
	var patterns []string
	for _, id := range m.ids {
		if !slices.ContainsFunc(m.cells[id], func(cell string) bool { return !isShut(cell) }) {
			continue
		}
		var cells []string
		for _, cell := range m.cells[id] {
			switch {
			case strings.HasSuffix(cell, insideMark):
				cell = "inside"
			case isOpen(cell):
				cell = "**open**"
			case cell == string(report.NotApplicable):
				cell = "–"
			}
			cells = append(cells, cell)
		}
		pattern := strings.Join(cells, " | ")
		if rows[pattern] == nil {
			patterns = append(patterns, pattern)
		}
		rows[pattern] = append(rows[pattern], id)
	}
	var b strings.Builder
	b.WriteString(m.heading("doors") + m.counts())
	for _, p := range patterns {
		fmt.Fprintf(&b, "| %s | %s |\n", names(rows[p]), p)
	}
	return b.String()
}

// names writes IDs down, each group's name once.
func names(ids []string) string {
	var parts []string
	last := ""
	for _, id := range ids {
		group, rest, _ := strings.Cut(id, ".")
		if group != last {
			parts = append(parts, "`"+id+"`")
		} else {
			parts = append(parts, "`."+rest+"`")
		}
		last = group
	}
	return strings.Join(parts, " ")
}

// MatrixTable is the matrix for docs/probes.md.
func MatrixTable() (string, error) {
	m, err := readMatrix()
	if err != nil {
		return "", err
	}
	return m.table() + "\n(" + m.machine + ".)\n", nil
}

// firstScreen are the doors that the README shows.
var firstScreen = []struct{ words, id string }{
	{"the host's kernel, for every system call", "kernel.own"},
	{"root inside is root of the host", "namespaces.uid-map"},
	{"programs that the host's kernel starts as root", "files.usermode-helpers"},
	{"disks of the host", "devices.disks"},
	{"loading kernel modules", "escape.modules"},
	{"any number of processes", "limits.processes"},
	{"how much memory the host has", "leaks.memory-size"},
}

// SummaryTable is the README's. A kernel is shared by design where no verdict says
// otherwise, and so is what it shows of the host's memory.
func SummaryTable() (string, error) {
	m, err := readMatrix()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(m.heading("") + m.counts())
	for _, row := range firstScreen {
		fmt.Fprintf(&b, "| %s |", row.words)
		for _, cell := range m.cells[row.id] {
			switch {
			case isOpen(cell):
				cell = "**open**"
			case cell == string(report.NotApplicable):
				cell = "shared"
			default:
				cell = "shut"
			}
			b.WriteString(" " + cell + " |")
		}
		b.WriteString("\n")
	}
	return b.String(), nil
}
