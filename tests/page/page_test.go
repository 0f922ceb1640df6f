// Package page_test shows the pages of documents in a real browser: nothing is
// asked of the network, nothing is refused or goes wrong, and everything can be read.
package page_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/nettest"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/seed-f5e3b97b/bulkhead/internal/report/page"
	"github.com/seed-f5e3b97b/bulkhead/internal/report/page/pagetest"
)

var pictures = flag.String("pictures", "", "write pictures of the pages into this `directory`, for looking at them")

func TestMain(m *testing.M) {
	flag.Parse()
	nettest.Isolate() // a browser looks for networks by itself
	os.Exit(m.Run())
}

// looks are the widths of a phone and of a desk, in both colour schemes, and paper.
var looks = []look{
	{390, 844, "light", "screen", true}, {390, 844, "dark", "screen", true},
	{1280, 900, "light", "screen", true}, {1280, 900, "dark", "screen", true},
	{390, 844, "light", "screen", false}, {1050, 740, "dark", "print", true},
}

func TestPages(t *testing.T) {
	leakcheck.Check(t, leakcheck.Options{})
	b := start(t)
	for name, d := range pagetest.All() {
		file := write(t, name, d, "")
		looks := looks
		if name != "compare" && name != "probe" {
			looks = looks[:2] // the narrow one is where things go wrong
		}
		for _, l := range looks {
			t.Run(name+"/"+l.String(), func(t *testing.T) {
				for _, f := range b.faults(file, l) {
					t.Error(f)
				}
			})
		}
	}
}

// write makes the page of a document, with something added to its end.
func write(t *testing.T, name string, d *report.Document, more string) string {
	t.Helper()
	var p bytes.Buffer
	if err := page.Write(&p, d); err != nil {
		t.Fatal(err)
	}
	p.WriteString(more)
	file := filepath.Join(t.TempDir(), name+".html")
	if err := os.WriteFile(file, p.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestFaultsAreSeen spoils a page, to know that the test above would see it.
func TestFaultsAreSeen(t *testing.T) {
	b := start(t)
	for name, tt := range map[string]struct{ more, want string }{
		"a picture from elsewhere": {`<img src="http://127.0.0.1:9/x.png">`, "violates the following Content Security Policy"},
		"a script":                 {`<script>document.title = "pwned"</script>`, "violates the following Content Security Policy"},
		"a frame":                  {`<iframe src="data:text/html,x"></iframe>`, "violates the following Content Security Policy"},
		"a wide element":           {`<svg width="3000" height="9"></svg>`, "wide"},
		"nothing":                  {`<p>nothing</p>`, ""},
		"faint text":               {`<p><font color="#bbbbbb">faint</font></p>`, "contrast"},
	} {
		got := strings.Join(b.faults(write(t, "spoilt", pagetest.Probe(), tt.more), looks[0]), "\n")
		if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("%s: faults %q, want %q", name, got, tt.want)
		}
	}
}

// TestLinksUnfold follows a link from the matrix to a finding that is folded away.
func TestLinksUnfold(t *testing.T) {
	b := start(t)
	b.open(write(t, "compare", pagetest.Compare(), ""), looks[0])
	var to string
	b.eval(`(() => { const a = document.querySelector("#doors a.v.open"); a.click(); return a.hash })()`, &to)
	b.call("Runtime.evaluate", map[string]any{"expression": "new Promise(requestAnimationFrame)", "awaitPromise": true}, nil)
	var height float64
	b.eval(fmt.Sprintf(`document.querySelector(%q).getBoundingClientRect().height`, to), &height)
	if height == 0 {
		t.Errorf("%s is still folded", to)
	}
}

// faults opens a page and says what is wrong with it.
func (b *browser) faults(file string, l look) (out []string) {
	b.t.Helper()
	b.open(file, l)
	if *pictures != "" {
		b.picture(filepath.Join(*pictures, strings.TrimSuffix(filepath.Base(file), ".html")+"-"+l.String()))
	}
	var layout struct {
		Width, Window float64
		Faint         []string
	}
	b.eval(measure, &layout)
	if layout.Width > layout.Window && l.media == "screen" {
		out = append(out, fmt.Sprintf("the page is %g wide, and the window %g", layout.Width, layout.Window))
	}
	out = append(out, layout.Faint...)
	for _, m := range b.events { // those of the measuring, too: what is late comes before its answer
		switch m.Method {
		case "Network.requestWillBeSent":
			var p struct{ Request struct{ URL string } }
			_ = json.Unmarshal(m.Params, &p)
			if p.Request.URL != "file://"+file {
				out = append(out, "a request to "+p.Request.URL)
			}
		case "Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled":
			out = append(out, m.Method+": "+string(m.Params))
		}
	}
	return out
}

// measure finds the width of the page, and texts whose contrast is below 4.5 : 1
// (WCAG 2.1, 1.4.3), one of each kind. It unfolds everything first.
const measure = `(() => {
	document.querySelectorAll("details").forEach(e => e.open = true);
	const rgba = s => { const m = s.match(/[\d.]+/g).map(Number); return m.length > 3 ? m : [...m, 1] };
	const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b };
	const behind = e => {
		let over = [];
		for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] > 0) over.unshift(c); if (c[3] == 1) break }
		return over.reduce((below, c) => below.map((v, i) => v * (1 - c[3]) + c[i] * c[3]), [255, 255, 255]);
	};
	const faint = new Set(), seen = new Set();
	const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (words.nextNode()) {
		const e = words.currentNode.parentElement;
		if (!words.currentNode.data.trim() || ["SCRIPT", "title", "desc"].includes(e.nodeName)) continue;
		let kind = ""; // those with the same ancestors look the same
		for (let a = e; a; a = a.parentElement) kind += a.nodeName + "." + a.getAttribute("class") + a.getAttribute("color") + " ";
		if (seen.size == seen.add(kind).size) continue;
		const style = getComputedStyle(e);
		const a = light(rgba(e.nodeName == "text" ? style.fill : style.color).slice(0, 3)), b = light(behind(e));
		const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
		if (contrast < 4.5) faint.add("contrast " + contrast.toFixed(2) + " of <" + e.nodeName + " class=" + e.getAttribute("class") + ">");
	}
	return { width: document.documentElement.scrollWidth, window: innerWidth, faint: [...faint] };
})()`

// picture writes what the window shows, in pieces of a size that can be looked at.
func (b *browser) picture(name string) {
	var size struct{ Width, Height float64 }
	b.eval(`(() => { const e = document.documentElement; return {width: e.clientWidth, height: Math.min(e.scrollHeight, 15000)} })()`, &size)
	const piece = 1500
	for y := 0.0; y < size.Height; y += piece {
		var shot struct{ Data []byte } // base64, as JSON has bytes
		b.call("Page.captureScreenshot", map[string]any{
			"format": "png", "captureBeyondViewport": true,
			"clip": map[string]any{"x": 0, "y": y, "width": size.Width, "height": min(piece, size.Height-y), "scale": 1},
		}, &shot)
		if err := os.WriteFile(fmt.Sprintf("%s-%02d.png", name, int(y/piece)), shot.Data, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
}
