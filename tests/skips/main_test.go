package main

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
)

const stream = `{"Action":"start","Package":"m/a"}
{"Action":"run","Package":"m/a","Test":"TestGood"}
{"Action":"output","Package":"m/a","Test":"TestGood","Output":"=== RUN   TestGood\n"}
{"Action":"pass","Package":"m/a","Test":"TestGood"}
{"Action":"output","Package":"m/a","Test":"TestLSM","Output":"=== RUN   TestLSM\n"}
{"Action":"output","Package":"m/a","Test":"TestLSM","Output":"    a_test.go:7: no AppArmor\n"}
{"Action":"output","Package":"m/a","Test":"TestLSM","Output":"--- SKIP: TestLSM (0.00s)\n"}
{"Action":"skip","Package":"m/a","Test":"TestLSM"}
{"Action":"output","Package":"m/a","Output":"PASS\n"}
{"Action":"output","Package":"m/a","Output":"ok  \tm/a\t0.1s\n"}
{"Action":"pass","Package":"m/a"}
`

const failing = `{"Action":"output","Package":"m/b","Test":"TestBad","Output":"    b_test.go:1: got 1, want 2\n"}
{"Action":"fail","Package":"m/b","Test":"TestBad"}
{"Action":"output","Package":"m/b","Output":"FAIL\tm/b\t0.1s\n"}
{"Action":"fail","Package":"m/b"}
`

func TestTally(t *testing.T) {
	holds := map[string]bool{"no-apparmor": true}
	excuse := []rule{{"a", "TestLSM", "no-apparmor", "r"}}
	for _, c := range []struct {
		name       string
		in         string
		rules      []rule
		conditions map[string]bool
		ok         bool
		want       []string
		last       string
	}{
		{"excused", stream, excuse, holds, true, []string{"skipped: m/a TestLSM: no AppArmor (no-apparmor)"}, "ok  \tm/a\t0.1s"},
		{"condition does not hold", stream, excuse, nil, false, []string{"SKIPPED WITHOUT EXCUSE: m/a TestLSM: no AppArmor"}, "FAIL"},
		{"no rule", stream, nil, holds, false, []string{"WITHOUT EXCUSE"}, "FAIL"},
		{"other package", stream, []rule{{"b", "TestLSM", "no-apparmor", "r"}}, holds, false, []string{"WITHOUT EXCUSE"}, "FAIL"},
		{"failure", stream + failing, excuse, holds, false, []string{"got 1, want 2", "FAIL\tm/b"}, "FAIL"},
		{"nothing ran", "", excuse, holds, false, []string{"0 tests ended"}, "FAIL"},
		{"build failure", `{"ImportPath":"m/c","Action":"build-output","Output":"c.go:1: no\n"}` + "\n" + `{"ImportPath":"m/c","Action":"build-fail"}` + "\n" + stream, excuse, holds, false, []string{"c.go:1: no"}, "FAIL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			w := bufio.NewWriter(&out)
			tally := newTally(w, c.rules, c.conditions)
			if err := tally.read(strings.NewReader(c.in)); err != nil {
				t.Fatal(err)
			}
			tally.finish()
			w.Flush()
			if tally.ok() != c.ok {
				t.Errorf("ok = %v, want %v", tally.ok(), c.ok)
			}
			for _, s := range c.want {
				if !strings.Contains(out.String(), s) {
					t.Errorf("output lacks %q:\n%s", s, out.String())
				}
			}
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if got := lines[len(lines)-1]; got != c.last {
				t.Errorf("last line %q, want %q", got, c.last)
			}
		})
	}
}

func TestMatch(t *testing.T) {
	rules := []rule{{"internal/a", "Test*", "always", "r"}, {"b", "TestX/sub", "always", "r"}}
	holds := map[string]bool{"always": true}
	for _, c := range []struct {
		pkg, test string
		want      bool
	}{
		{"m/internal/a", "TestOne", true},
		{"m/internal/a", "TestOne/sub/deep", true},
		{"m/xinternal/a", "TestOne", false},
		{"m/b", "TestX/sub", true},
		{"m/b", "TestX/sub/deep", true},
		{"m/b", "TestX", false},
		{"m/b", "TestX/other", false},
	} {
		if _, got := match(rules, holds, c.pkg, c.test); got != c.want {
			t.Errorf("match(%s, %s) = %v, want %v", c.pkg, c.test, got, c.want)
		}
	}
}

func TestParseRules(t *testing.T) {
	for in, want := range map[string]string{
		"a TestX no-apparmor the kernel has none": "",
		"# comment\n\n":                 "",
		"a TestX no-apparmor":           "line 1: want package",
		"\na TestX weather it rains":    `line 2: unknown condition "weather"`,
		"a Test[ always broken pattern": "line 1: test pattern",
	} {
		_, err := parseRules(strings.NewReader(in))
		switch {
		case want == "" && err != nil:
			t.Errorf("parseRules(%q): %v", in, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("parseRules(%q) = %v, want %q", in, err, want)
		}
	}
}
