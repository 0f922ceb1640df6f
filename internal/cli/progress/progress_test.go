package progress

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// fixed returns a display of a window and a clock that stands still.
func fixed(b *strings.Builder, mode Mode, rows, cols uint16) *Display {
	d := New(b, mode, func() (uint16, uint16) { return rows, cols })
	d.now = func() time.Time { return time.Unix(0, 0) }
	return d
}

func TestBars(t *testing.T) {
	var b strings.Builder
	d := fixed(&b, Bars, 24, 60)
	d.Update("aaa", "downloading", 0, 1000)
	d.Update("aaa", "downloading", 500, 1000) // too soon to draw
	d.Update("b\x1bb", "downloading", 1, 0)
	d.Done("aaa", "done")
	d.Close()
	want := "aaa: downloading [>" + strings.Repeat(" ", 32) + "] 0B/1kB\x1b[K\n\x1b[J" +
		"\x1b[1Aaaa: downloading [" + strings.Repeat("=", 15) + ">" + strings.Repeat(" ", 15) + "] 500B/1kB\x1b[K\n" + "b\\x1bb: downloading 1B\x1b[K\n\x1b[J" +
		"\x1b[2Aaaa: done\x1b[K\nb\\x1bb: downloading 1B\x1b[K\n\x1b[J" +
		"\x1b[2Aaaa: done\x1b[K\nb\\x1bb: downloading 1B\x1b[K\n\x1b[J"
	if b.String() != want {
		t.Errorf("got\n%q\nwant\n%q", b.String(), want)
	}
}

func TestLinesFitTheWindow(t *testing.T) {
	for _, cols := range []uint16{1, 5, 20, 40, 80, 300} {
		for _, rows := range []uint16{1, 2, 5} {
			var b strings.Builder
			d := fixed(&b, Bars, rows, cols)
			for i := range 7 {
				d.Update(fmt.Sprint("layer", i), "downloading", int64(i), 3)
				if i%2 == 0 {
					d.Done(fmt.Sprint("layer", i), "done")
				}
			}
			b.Reset()
			d.Close()
			lines := strings.SplitAfter(b.String(), "\n")
			for _, l := range lines {
				l = strings.TrimSuffix(l, "\x1b[K\n")
				if i := strings.Index(l, "A"); strings.HasPrefix(l, "\x1b") && i >= 0 {
					l = l[i+1:]
				}
				if l != "\x1b[J" && len(l) > int(cols) {
					t.Errorf("%d columns: %q has %d", cols, l, len(l))
				}
			}
			if n := len(lines) - 1; n > max(int(rows)-1, 1) {
				t.Errorf("%d lines in a window of %d", n, rows)
			}
			if rows == 5 && strings.Contains(b.String(), "layer0") {
				t.Error("a finished transfer is shown where a running one is not")
			}
		}
	}
}

func TestLinesAndSilence(t *testing.T) {
	for mode, want := range map[Mode]string{Lines: "a: done\n", Silent: ""} {
		var b strings.Builder
		d := fixed(&b, mode, 0, 0)
		d.Update("a", "downloading", 1, 2)
		d.Done("a", "done")
		d.Done("a", "done")
		d.Close()
		if b.String() != want {
			t.Errorf("mode %d: %q, want %q", mode, b.String(), want)
		}
	}
}

func ExampleDisplay() {
	d := New(os.Stdout, Lines, nil)
	d.Update("4f4fb700ef54", "downloading", 10, 32)
	d.Done("4f4fb700ef54", "done")
	// Output: 4f4fb700ef54: done
}
