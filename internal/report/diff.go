package report

// Change is a finding whose verdict differs between two documents.
type Change struct {
	Label string  `json:"label"`
	ID    string  `json:"id"`
	Old   Verdict `json:"old,omitempty"` // "" where the finding is new
	New   Verdict `json:"new,omitempty"` // "" where it is gone
}

// Opened reports whether a door is open that was not known to be.
func (c Change) Opened() bool { return c.New.Open() && !c.Old.Open() }

// Diff returns what changed from an earlier document to a later one, in the order
// of the later one. Subjects that only one of them has are left out: somebody
// looked at something else.
func Diff(old, new *Document) (out []Change) {
	for i := range new.Reports {
		n := &new.Reports[i]
		for j := range old.Reports {
			if o := &old.Reports[j]; o.Subject.Label == n.Subject.Label {
				out = append(out, diff(o, n)...)
			}
		}
	}
	return out
}

func diff(old, new *Report) (out []Change) {
	before, now := map[string]Verdict{}, map[string]bool{}
	for i := range old.Findings {
		before[old.Findings[i].ID] = old.Findings[i].Verdict
	}
	for i := range new.Findings {
		f := &new.Findings[i]
		now[f.ID] = true
		if before[f.ID] != f.Verdict {
			out = append(out, Change{new.Subject.Label, f.ID, before[f.ID], f.Verdict})
		}
	}
	for i := range old.Findings {
		if f := &old.Findings[i]; !now[f.ID] {
			out = append(out, Change{new.Subject.Label, f.ID, f.Verdict, ""})
		}
	}
	return out
}
