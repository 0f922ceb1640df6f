// Package progress shows how far transfers are: on a terminal a bar for each,
// redrawn in place and no wider than the window; elsewhere one quiet line when
// a transfer ends; nothing at all when asked for silence.
package progress

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/safetext"
)

// interval is the shortest time between two redraws.
const interval = 100 * time.Millisecond

// Mode is how progress is shown.
type Mode int

// The modes.
const (
	Lines  Mode = iota // a line when a transfer ends
	Bars               // bars on a terminal
	Silent             // nothing
)

// Display shows several transfers. Its methods may be called at the same time.
type Display struct {
	w    io.Writer
	mode Mode
	size func() (rows, cols uint16)
	now  func() time.Time

	mu    sync.Mutex
	items []*item
	index map[string]*item
	drawn int // lines on the screen that belong to us
	last  time.Time
}

// item is one transfer.
type item struct {
	name, phase   string
	current, size int64
	done          bool
}

// New returns a display on w. size gives the window's size in characters for
// Bars, zeros when unknown.
func New(w io.Writer, mode Mode, size func() (rows, cols uint16)) *Display {
	return &Display{w: w, mode: mode, size: size, now: time.Now, index: map[string]*item{}}
}

// Update says how far the transfer name is: what is being done to it, and
// current of size bytes, size 0 when unknown.
func (d *Display) Update(name, phase string, current, size int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	it := d.item(name)
	changed := it.phase != phase
	it.phase, it.current, it.size, it.done = phase, current, size, false
	if d.mode == Bars && (changed || d.now().Sub(d.last) >= interval) {
		d.draw()
	}
}

// Done says that the transfer name has ended, as result.
func (d *Display) Done(name, result string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	it := d.item(name)
	if it.done && it.phase == result {
		return
	}
	it.phase, it.done = result, true
	switch d.mode {
	case Bars:
		d.draw()
	case Lines:
		fmt.Fprintf(d.w, "%s: %s\n", safetext.Line(name), safetext.Line(result))
	}
}

// Close draws the last state; afterwards the cursor is below it.
func (d *Display) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mode == Bars && len(d.items) > 0 {
		d.draw()
	}
}

// item finds or adds a transfer.
func (d *Display) item(name string) *item {
	it := d.index[name]
	if it == nil {
		it = &item{name: name}
		d.index[name] = it
		d.items = append(d.items, it)
	}
	return it
}

// draw replaces what is on the screen. Lines that would not fit the window's
// height are left out, those that are done first: the cursor cannot be moved
// above the window.
func (d *Display) draw() {
	rows, cols := d.size()
	if rows == 0 || cols == 0 {
		rows, cols = 24, 80
	}
	var b strings.Builder
	if d.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", d.drawn)
	}
	shown := d.shown(max(int(rows)-1, 1))
	for _, it := range shown {
		b.WriteString(line(it, int(cols)-1)) // the last column would wrap
		b.WriteString("\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	d.drawn, d.last = len(shown), d.now()
	io.WriteString(d.w, b.String())
}

// shown picks at most n transfers, keeping their order.
func (d *Display) shown(n int) []*item {
	drop := len(d.items) - n
	var out []*item
	for _, it := range d.items {
		if drop > 0 && it.done {
			drop--
			continue
		}
		out = append(out, it)
	}
	return out[:min(n, len(out))]
}

// line writes one transfer in at most width characters.
func line(it *item, width int) string {
	name, phase := safetext.Line(it.name), safetext.Line(it.phase)
	if it.done {
		return clip(fmt.Sprintf("%s: %s", name, phase), width)
	}
	head := fmt.Sprintf("%s: %-11s ", name, phase)
	amount := output.Size(it.current)
	if it.size > 0 {
		amount += "/" + output.Size(it.size)
	}
	room := width - len([]rune(head)) - len(amount) - 3
	if it.size <= 0 || room < 5 {
		return clip(head+amount, width)
	}
	room = min(room, 50)
	full := int(float64(room) * min(1, float64(it.current)/float64(it.size)))
	bar := strings.Repeat("=", full)
	if full < room {
		bar += ">" + strings.Repeat(" ", room-full-1)
	}
	return fmt.Sprintf("%s[%s] %s", head, bar, amount)
}

// clip cuts s after width characters.
func clip(s string, width int) string {
	r := []rune(s)
	return string(r[:min(len(r), max(width, 0))])
}
