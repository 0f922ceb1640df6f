package page

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/seed-f5e3b97b/bulkhead/internal/report/page/pagetest"
	"golang.org/x/net/html"
)

// write makes a page and takes it apart as a browser would.
func write(t *testing.T, d *report.Document) (string, *html.Node) {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, d); err != nil {
		t.Fatal(err)
	}
	root, err := html.Parse(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), root
}

// all are the elements of a page with one of the names, or every one.
func all(root *html.Node, names ...string) (out []*html.Node) {
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && (len(names) == 0 || slices.Contains(names, n.Data)) {
			out = append(out, n)
		}
	}
	return out
}

func attribute(n *html.Node, name string) (string, bool) {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val, true
		}
	}
	return "", false
}

// text is what an element says, without what is not text.
func text(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode && c.Parent.Data != "style" && c.Parent.Data != "script" {
			b.WriteString(c.Data)
		}
	}
	return b.String()
}

// allowed are the elements and attributes that the template writes. What a document
// could smuggle in is none of them, or in a place that the tests below look at.
var (
	elements = strings.Fields(`html head meta title style body script a header main footer nav section article div p span h1 h2 h3 h4 h5 b i br
		small code bdi time abbr ol ul li dl dt dd details summary figure figcaption table thead tbody tr th td svg path rect use text desc`)
	attributes = strings.Fields(`lang dir charset http-equiv content name class id href title role aria-label aria-hidden tabindex scope colspan
		rowspan open datetime width height x y d rx viewBox preserveAspectRatio text-anchor`)
	safeURL = regexp.MustCompile(`^#[a-z][a-z0-9-]*$`)
)

// TestHarmless looks for anything on the page that is not the template's own: an
// element, an attribute, an address, a policy that allows more.
func TestHarmless(t *testing.T) {
	for name, d := range pagetest.All() {
		t.Run(name, func(t *testing.T) {
			page, root := write(t, d)
			ids := map[string]bool{}
			for _, n := range all(root) {
				if !slices.Contains(elements, n.Data) {
					t.Errorf("there is an element %s", n.Data)
				}
				for _, a := range n.Attr {
					if !slices.Contains(attributes, a.Key) {
						t.Errorf("%s has an attribute %s=%.80q", n.Data, a.Key, a.Val)
					}
					if a.Key == "href" && !safeURL.MatchString(a.Val) {
						t.Errorf("%s leads to %.80q", n.Data, a.Val)
					}
				}
				if id, ok := attribute(n, "id"); ok {
					if ids[id] {
						t.Errorf("two elements are %q", id)
					}
					ids[id] = true
				}
			}
			for _, n := range all(root, "a") {
				if href, _ := attribute(n, "href"); !ids[strings.TrimPrefix(href, "#")] {
					t.Errorf("a link leads to %q, which is nowhere", href)
				}
			}
			for n := range root.Descendants() {
				if n.Type == html.CommentNode {
					t.Errorf("there is a comment: %.80q", n.Data)
				}
			}
			if i := strings.IndexFunc(page, func(r rune) bool { return r != '\n' && r != '\u00a0' && !strconv.IsPrint(r) }); i >= 0 {
				t.Errorf("something is not visible: %q", page[i:i+20])
			}
			for _, word := range []string{"NaN", "Inf", "%!", "<nil>", "ZgotmplZ", "<no value>"} {
				if strings.Contains(page, word) {
					t.Errorf("the page says %s", word)
				}
			}
		})
	}
}

// TestPolicy holds the policy to what the page carries.
func TestPolicy(t *testing.T) {
	for name, d := range map[string]*report.Document{"compare": pagetest.Compare(), "hostile": pagetest.Hostile(), "empty": pagetest.Empty(report.Audit)} {
		_, root := write(t, d)
		var policy string
		for _, n := range all(root, "meta") {
			if v, _ := attribute(n, "http-equiv"); v == "Content-Security-Policy" {
				policy, _ = attribute(n, "content")
			}
		}
		sum := func(element string) string {
			found := all(root, element)
			if len(found) != 1 {
				t.Fatalf("%s: %d elements %s", name, len(found), element)
			}
			h := sha256.Sum256([]byte(found[0].FirstChild.Data))
			return "'sha256-" + base64.StdEncoding.EncodeToString(h[:]) + "'"
		}
		want := "default-src 'none'; style-src " + sum("style") + "; script-src " + sum("script") + "; base-uri 'none'; form-action 'none'"
		if policy != want {
			t.Errorf("%s: policy\n%s, want\n%s", name, policy, want)
		}
	}
}

// TestAttackIsText looks for the whole attack, as text that can be read.
func TestAttackIsText(t *testing.T) {
	_, root := write(t, pagetest.Hostile())
	want := `\u202e\u2066\u200b\u0085\u009b\u2028\ufeff\U000e0041`
	said := text(root)
	if !strings.Contains(said, want) || !strings.Contains(said, visible(pagetest.Attack)) {
		t.Error("the attack is nowhere to be read")
	}
	if n := strings.Count(said, "<script>alert(1)</script>"); n < 1000 {
		t.Errorf("the attack is %d times on the page", n)
	}
}

// TestEverythingIsThere looks for every measure, verdict and reason.
func TestEverythingIsThere(t *testing.T) {
	d := pagetest.Compare()
	d.Reports[3].Measures[5].Reason, d.Reports[3].Measures[5].Samples = "a reason that only this one has", nil
	_, root := write(t, d)
	table := find(t, root, "side-by-side")
	said := text(table)
	columns := len(d.Reports) - 1 // TestAbsent has the last
	for i := range d.Reports[:columns] {
		for j := range d.Reports[i].Measures {
			m := &d.Reports[i].Measures[j]
			want := []string{m.Name, m.Reason, m.Text}
			if m.Measured() {
				want = append(want, number(m.Median(), m.Unit))
			}
			for _, w := range want {
				if !strings.Contains(said, w) {
					t.Errorf("%s of %s: the table does not say %q", m.ID, d.Reports[i].Subject.Label, w)
				}
			}
		}
	}
	// Each row has a cell for each subject, be it one that reaches down from above.
	for _, body := range all(table, "tbody") {
		rows := all(body, "tr")
		cells := 0
		for _, c := range all(body, "td") {
			n := 1
			if v, ok := attribute(c, "rowspan"); ok {
				n, _ = strconv.Atoi(v)
			}
			cells += n
		}
		if cells != len(rows)*columns {
			t.Errorf("%s: %d cells in %d rows", text(rows[0]), cells, len(rows))
		}
	}
	details := find(t, root, "details")
	for i := range d.Reports {
		r := &d.Reports[i]
		one := text(find(t, details, "s"+strconv.Itoa(i)))
		if untried(r) != "" {
			if !strings.Contains(one, untried(r)) {
				t.Errorf("%s: no reason why nothing was tried", r.Subject.Label)
			}
			continue
		}
		for _, f := range r.Findings {
			if !strings.Contains(one, f.ID) || !strings.Contains(one, f.Observed) || !strings.Contains(one, f.Reason) {
				t.Errorf("%s: %s is missing", r.Subject.Label, f.ID)
			}
			if f.Verdict.Open() && (!strings.Contains(one, f.Fix) || !strings.Contains(one, f.Evidence[0].Call)) {
				t.Errorf("%s: %s has no fix or evidence", r.Subject.Label, f.ID)
			}
		}
	}
}

// TestMatrix holds the cells of the doors to the document.
func TestMatrix(t *testing.T) {
	d := pagetest.Compare()
	_, root := write(t, d)
	columns := len(d.Reports) - 1 // TestAbsent has the last
	seen := map[string]int{}
	for _, row := range all(find(t, root, "doors"), "tr") {
		ids := all(row, "code")
		if len(ids) == 0 {
			continue
		}
		id, cells := text(ids[0]), all(row, "td")
		if len(cells) != columns {
			t.Fatalf("%s has %d cells", id, len(cells))
		}
		for i, c := range cells {
			want := "–"
			if untried(&d.Reports[i]) == "" {
				j := slices.IndexFunc(d.Reports[i].Findings, func(f report.Finding) bool { return f.ID == id })
				want = mark(&d.Reports[i].Findings[j])
			}
			if text(c) != want {
				t.Errorf("%s behind %s: the page says %q, want %q", id, d.Reports[i].Subject.Label, text(c), want)
			}
		}
		seen[id]++
		// What only the baseline leaves open is folded away.
		if id == "escape.modules" && !folded(row) || id == "leaks.interrupts" && folded(row) {
			t.Errorf("%s is in the wrong half", id)
		}
	}
	for _, f := range d.Reports[0].Findings {
		if seen[f.ID] != 1 {
			t.Errorf("%s is there %d times", f.ID, seen[f.ID])
		}
	}
}

func folded(n *html.Node) bool {
	for p := range n.Ancestors() {
		if p.Data == "details" {
			return true
		}
	}
	return false
}

func find(t *testing.T, root *html.Node, id string) *html.Node {
	t.Helper()
	for _, n := range all(root) {
		if v, _ := attribute(n, "id"); v == id {
			return n
		}
	}
	t.Fatalf("there is no %q on the page", id)
	return nil
}

// TestSections holds the page to what its document has.
func TestSections(t *testing.T) {
	changed := pagetest.Probe()
	changed.Changes = []report.Change{{Label: "Docker", ID: "namespaces.pid", Old: report.Held, New: report.Leaked}}
	counts := pagetest.Probe() // of things that do not say whether they work
	counts.Reports[0].Measures = []report.Measure{{
		ID: "surface.devices", Name: "device nodes", Unit: report.Number, Better: report.Less, Samples: []float64{2}, Parts: []report.Fact{{Name: "null", Value: "1:3"}},
	}}
	for _, tt := range []struct {
		name string
		d    *report.Document
		want string
	}{
		{"compare", pagetest.Compare(), "side-by-side costs doors features details"},
		{"unknown", pagetest.Unknown(), "side-by-side doors details"},
		{"probe", pagetest.Probe(), "doors details"},
		{"counts", counts, "side-by-side doors details"},
		{"changes", changed, "doors changes details"},
		{"audit", pagetest.Audit(300), "doors details"},
		{"sparse", pagetest.Sparse(), "side-by-side costs details"},
		{"empty", pagetest.Empty(report.Audit), ""},
	} {
		_, root := write(t, tt.d)
		var got []string
		for _, n := range all(root, "section") {
			id, _ := attribute(n, "id")
			got = append(got, id)
		}
		if g := strings.Join(got, " "); g != tt.want {
			t.Errorf("%s: sections %q, want %q", tt.name, g, tt.want)
		}
	}
}

func TestSize(t *testing.T) {
	for _, tt := range []struct {
		name  string
		d     *report.Document
		limit int
	}{{"compare", pagetest.Compare(), 600_000}, {"probe", pagetest.Probe(), 100_000}, {"audit of 300", pagetest.Audit(300), 2_000_000}} {
		var b bytes.Buffer
		if err := Write(&b, tt.d); err != nil {
			t.Fatal(err)
		}
		if b.Len() > tt.limit {
			t.Errorf("%s has %d bytes, want at most %d", tt.name, b.Len(), tt.limit)
		}
	}
}

// TestRefuses leaves nothing of a page that cannot be made.
func TestRefuses(t *testing.T) {
	d := pagetest.Probe()
	d.Reports[0].Subject.Note = "two\nlines"
	var b bytes.Buffer
	if err := Write(&b, d); !errors.Is(err, report.ErrMalformed) || b.Len() > 0 {
		t.Errorf("got %v and %d bytes, want ErrMalformed and none", err, b.Len())
	}
}

// TestSameAgain: the page of a document is always the same, and the document is
// left alone.
func TestSameAgain(t *testing.T) {
	d := pagetest.Hostile()
	one, _ := write(t, d)
	two, _ := write(t, d)
	if one != two {
		t.Error("two pages of one document differ")
	}
	if !strings.Contains(d.Tool, "\u202e") {
		t.Error("the document was changed")
	}
}

// TestLead holds the first sentences to their documents.
func TestLead(t *testing.T) {
	noisy := pagetest.Compare()
	for i := range noisy.Reports {
		if m := noisy.Reports[i].Measure(startID); m.Measured() {
			m.Samples = []float64{1, 2, 3, 4, 5, 6, 7, 8}
		}
	}
	few := pagetest.Compare()
	few.Reports = few.Reports[:3]
	for i := range few.Reports {
		few.Reports[i].Measure(startID).Samples = few.Reports[i].Measure(startID).Samples[:5] // too few to tell apart
	}
	changed := pagetest.Probe()
	changed.Changes = []report.Change{{Label: "Docker", ID: "namespaces.pid", Old: report.Held, New: report.Leaked}}
	two := pagetest.Compare()
	two.Reports = two.Reports[7:9]
	of := func(label string) *report.Document {
		d := pagetest.Compare()
		d.Kind = report.Probe
		d.Reports = slices.DeleteFunc(d.Reports, func(r report.Report) bool { return r.Subject.Label != label })
		return d
	}
	emptied := pagetest.Probe()
	emptied.Reports[0].Findings = nil
	beside := pagetest.Probe()
	beside.Reports[0].Findings = nil
	for id, least := range map[string]float64{"limited-p99.idle": 1, "limited-p99.cpu": 1.05, "unlimited-p99.idle": 1, "unlimited-p99.cpu": 2, "unlimited-p99.dirty": 3} {
		_, name, _ := strings.Cut(id, ".")
		beside.Reports[0].Measures = append(beside.Reports[0].Measures, report.Measure{
			ID: id, Name: name, Unit: report.Ratio, Better: report.Less,
			Samples: []float64{least, least + 0.02, least + 0.04, least + 0.06, least + 0.08, least + 0.1},
		})
	}
	for name, tt := range map[string]struct {
		d    *report.Document
		want []string
	}{
		"compare": {pagetest.Compare(), []string{
			"Of nine ways to isolate it, container was first to its first output, after 32.1\u00a0ms, 15 times what it takes without a boundary; system was last, after 9.76\u00a0s, 304 times as long.",
			"gvisor, vm, booted, vm, tenant and system have a kernel of their own; the other four share the host's.",
			"Every door that was tried is shut behind container, vm, booted, vm and tenant.",
			"Five leave doors open, one of them only inside; Docker leaves the most, 12 of 93.",
			"The processor was emulated for vm, booted, vm, tenant and system.",
			"Not measured: Podman: podman is not installed.",
		}},
		"noise":  {noisy, []string{"Noise cannot tell which of nine ways starts first."}},
		"few":    {few, []string{"Noise cannot tell which of two ways starts first.", "Only gvisor has a kernel of its own."}},
		"probe":  {pagetest.Probe(), []string{"Docker shares with the host the kernel, Linux 6.18.44. Of 93 doors 12 stand open, 1 of them although they are declared shut."}},
		"inside": {of("system"), []string{"system shares with the host nothing that was looked at. Of 94 doors 1 stand open, none of them to the host; 1 could not be tried."}},
		"waived": {of("gvisor"), []string{"gvisor shares with the host nothing that was looked at. Of 94 doors 3 stand open, 1 of them inside alone; 3 could not be tried; 1 of these waived."}},
		"absent": {of("Podman"), []string{"No door could be tried: podman is not installed."}},
		"audit":  {pagetest.Audit(300), []string{"166 of 300 leave doors open; docker:web-008 leaves the most, 12 of 40."}},
		"diff":   {changed, []string{"1 verdict changed since the earlier report; 1 door opened."}},
		"none":   {pagetest.Empty(report.Probe), []string{"There was nothing to look at."}},
		"beside": {beside, []string{
			"Noise hides what a neighbour with limits costs Docker.",
			"Of neighbours without limits, dirty is felt most, behind Docker: the p99 of requests is 3.0 times what it is alone.",
		}},
		"void": {emptied, []string{"Nothing could be summed up."}},
	} {
		var got []string
		for _, s := range lead(tt.d) {
			var b strings.Builder
			for _, p := range s {
				b.WriteString(p.Text)
			}
			got = append(got, b.String())
		}
		for _, w := range tt.want {
			if !slices.Contains(got, w) {
				t.Errorf("%s: no sentence %q in\n%s", name, w, strings.Join(got, "\n"))
			}
		}
	}
}

// TestAbsent: a way of which nothing could be measured is named with the reason, and
// has no column that repeats it. If that is true of all, they have.
func TestAbsent(t *testing.T) {
	columns := func(d *report.Document) int {
		_, root := write(t, d)
		return len(all(all(find(t, root, "side-by-side"), "thead")[0], "th")) - 1
	}
	d := pagetest.Compare()
	if n := columns(d); n != len(d.Reports)-1 {
		t.Errorf("%d columns for %d ways, one of which was not measured", n, len(d.Reports))
	}
	// Wherever it stands, links lead to the right place.
	slices.Reverse(d.Reports)
	_, root := write(t, d)
	for _, th := range all(all(find(t, root, "side-by-side"), "thead")[0], "th")[1:] {
		href, _ := attribute(all(th, "a")[0], "href")
		if name, place := text(all(th, "bdi")[0]), text(find(t, root, href[1:])); !strings.HasPrefix(strings.TrimSpace(place), name) {
			t.Errorf("the column of %s leads to %.40q", name, place)
		}
	}
	d = pagetest.Unknown()
	if n := columns(d); n != len(d.Reports) {
		t.Errorf("%d columns for %d ways, none of which was measured", n, len(d.Reports))
	}
}

// TestBest: what is marked is what the document says is best of those that isolate,
// in the table and in the plots.
func TestBest(t *testing.T) {
	_, root := write(t, pagetest.Compare())
	for _, section := range []string{"side-by-side", "costs"} {
		var marked []string
		for _, n := range all(find(t, root, section), "span") {
			if s, ok := strings.CutSuffix(text(n), " (best)"); ok && s != "" {
				marked = append(marked, strings.Fields(s)[0])
			}
		}
		for _, want := range []string{"32.1", "43.2"} { // container's
			if !slices.Contains(marked, want) {
				t.Errorf("%s: %s is not marked in %q", section, want, marked)
			}
		}
		for _, no := range []string{"2.17", "2.88", "34.2", "0"} { // the baseline's, crun's, and what most have
			if slices.Contains(marked, no) {
				t.Errorf("%s: %s is marked in %q", section, no, marked)
			}
		}
	}
}
