package main

import (
	"fmt"
	"os"
	"path"
	"strings"
)

// excuses are the skips that are allowed in the guest. The guest is the same
// machine for everybody and lacks nothing that it promises, so any other skip is
// a failure: it would be seen by nobody.
type excuses []excuse

// excuse is a line of the file: the end of an import path, a pattern as in
// path.Match for the test's name, and the reason.
type excuse struct{ pkg, test string }

func readExcuses(file string) (excuses, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list excuses
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) < 3 {
			return nil, fmt.Errorf("%s: %q: want package, test and reason", file, line)
		}
		if _, err := path.Match(fields[1], ""); err != nil {
			return nil, fmt.Errorf("%s: pattern %q: %w", file, fields[1], err)
		}
		list = append(list, excuse{fields[0], fields[1]})
	}
	return list, nil
}

// cover reports whether a test's skip is excused. A pattern for a test covers
// its subtests.
func (list excuses) cover(pkg, test string) bool {
	for _, e := range list {
		if pkg != e.pkg && !strings.HasSuffix(pkg, "/"+e.pkg) {
			continue
		}
		for name := test; name != "."; name = path.Dir(name) {
			if ok, _ := path.Match(e.test, name); ok {
				return true
			}
		}
	}
	return false
}
