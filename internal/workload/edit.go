package workload

import "bytes"

// FileEdit changes a file that a workload was given, such as /etc/hosts, and may
// have changed itself since.
type FileEdit struct {
	// Old is what the file was given as, New what it is to be.
	Old []byte `json:"old"`
	New []byte `json:"new"`
	// Lines lets a file that the workload has changed get the lines of New in the
	// place of those of Old, beside its own. Without it such a file stays as it is.
	Lines bool `json:"lines,omitempty"`
}

// Apply returns what becomes of a file with the text now.
func (e FileEdit) Apply(now []byte) []byte {
	switch {
	case bytes.Equal(now, e.Old):
		return e.New
	case !e.Lines:
		return now
	}
	gone, added := map[string]int{}, []string{}
	for l := range bytes.Lines(e.Old) {
		gone[whole(l)]++
	}
	for l := range bytes.Lines(e.New) {
		if gone[whole(l)] > 0 {
			gone[whole(l)]--
		} else {
			added = append(added, whole(l))
		}
	}
	var out bytes.Buffer
	for l := range bytes.Lines(now) {
		if gone[whole(l)] > 0 {
			gone[whole(l)]--
			continue
		}
		out.WriteString(whole(l))
	}
	for _, l := range added {
		out.WriteString(l)
	}
	return out.Bytes()
}

// whole is a line with its end.
func whole(line []byte) string {
	return string(bytes.TrimSuffix(line, []byte{'\n'})) + "\n"
}
