package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
)

// A --filter is KEY=VALUE. Of one key, any value may hold, but all labels must;
// of different keys, each must hold. That is Docker's rule.

// filterCheck tells what is wrong with a filter's value, "" for nothing.
type filterCheck func(value string) string

// filterSet is what one command's --filter understands.
type filterSet struct {
	keys map[string]filterCheck
}

func anyText(string) string { return "" }

// expression wants a regular expression, which Docker's filters of names and IDs
// are: a part of a name is one that matches, and ^NAME$ is the whole.
func expression(s string) string {
	if _, err := regexp.Compile(s); err != nil {
		return "a name or an ID is a regular expression, such as web for a part of it, or ^web$ for the whole"
	}
	return ""
}

// isMatch reports whether an expression that was let pass matches a text.
func isMatch(expression, text string) bool {
	ok, err := regexp.MatchString(expression, text)
	return ok && err == nil
}

// truth wants Docker's words for yes and no.
func truth(s string) string {
	if _, err := strconv.ParseBool(s); err != nil {
		return "it is true or false"
	}
	return ""
}

// isTrue reads what truth let pass.
func isTrue(s string) bool {
	yes, _ := strconv.ParseBool(s)
	return yes
}

// oneOf wants one of a few words.
func oneOf(words ...string) filterCheck {
	return func(s string) string {
		if slices.Contains(words, s) {
			return ""
		}
		return "it is one of " + strings.Join(words, ", ")
	}
}

// number wants an integer between two others.
func number(low, high int64) filterCheck {
	return func(s string) string {
		if n, err := strconv.ParseInt(s, 10, 64); err != nil || n < low || n > high {
			return fmt.Sprintf("give a number from %d to %d", low, high)
		}
		return ""
	}
}

// isTable reports whether a format is the plain table, in whose place -q shows
// one column. As in Docker, another format counts more than -q, but for ps.
func isTable(format string) bool { return format == "" || format == "table" }

// filters are the values of --filter by their key.
type filters map[string][]string

func (f filters) has(key string) bool { return len(f[key]) > 0 }

// parse reads every --filter.
func (s filterSet) parse(all []string) (filters, error) {
	out := filters{}
	for _, word := range all {
		k, v, ok := strings.Cut(word, "=")
		k, v = strings.ToLower(strings.TrimSpace(k)), strings.TrimSpace(v)
		check := s.keys[k]
		if !ok || v == "" || check == nil {
			return nil, advice.New(fmt.Sprintf("--filter %q: not a filter", word),
				"write KEY=VALUE; keys are "+strings.Join(slices.Sorted(maps.Keys(s.keys)), ", "))
		}
		if fix := check(v); fix != "" {
			return nil, advice.New(fmt.Sprintf("--filter %q: unknown value", word), fix)
		}
		out[k] = append(out[k], v)
	}
	return out, nil
}

// all reports whether every filter holds, as holds says of one.
func (f filters) all(holds func(key, value string) bool) bool {
	for key, values := range f {
		one := func(v string) bool { return holds(key, v) }
		if strings.HasPrefix(key, "label") {
			if slices.ContainsFunc(values, func(v string) bool { return !one(v) }) {
				return false
			}
		} else if !slices.ContainsFunc(values, one) {
			return false
		}
	}
	return true
}

// hasLabel reports whether labels hold KEY, or KEY=VALUE.
func hasLabel(labels map[string]string, want string) bool {
	k, v, hasValue := strings.Cut(want, "=")
	got, ok := labels[k]
	return ok && (!hasValue || got == v)
}
