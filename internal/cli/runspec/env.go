package runspec

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
)

// envFileLimit bounds an environment or label file: execve(2) takes 2 MiB of
// arguments and environment together on a default stack.
const envFileLimit = 2 << 20

const envFix = "write NAME=VALUE, or NAME alone to pass the variable of your own environment"

// assignment is one variable: set to a value, or taken away.
type assignment struct {
	name, value string
	unset       bool
}

// parseEnv reads one -e: NAME=VALUE, or NAME for the caller's own value. As
// with Docker, a NAME that the caller does not have is taken away, even where
// the image sets it.
func parseEnv(host Host, flag, s string) (assignment, error) {
	name, value, hasValue := strings.Cut(s, "=")
	switch {
	case name == "":
		return assignment{}, bad(flag, s, "the name is missing", envFix)
	case strings.ContainsRune(s, 0):
		return assignment{}, bad(flag, s, "a variable cannot hold a zero byte", envFix)
	case hasValue:
		return assignment{name: name, value: value}, nil
	}
	value, ok := host.LookupEnv(name)
	return assignment{name: name, value: value, unset: !ok}, nil
}

// parseEnvFile reads the --env-file syntax: one NAME=VALUE or NAME a line, taken
// literally (no quotes, no expansion); leading blanks, empty lines and lines
// that begin with # are skipped. As with Docker, so is a NAME that the caller does
// not have, whatever -e makes of one. text must be UTF-8; a leading byte order mark
// is dropped. file is named in errors.
func parseEnvFile(host Host, file string, text []byte) ([]assignment, error) {
	var out []assignment
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	number := 0
	for line := range bytes.Lines(text) {
		number++
		flag := fmt.Sprintf("--env-file %s line %d", file, number)
		line = bytes.TrimRight(line, "\r\n")
		if !utf8.Valid(line) {
			return nil, bad(flag, string(line), "not UTF-8 text", "save the file as UTF-8")
		}
		s := strings.TrimLeft(string(line), " \t")
		if s == "" || s[0] == '#' {
			continue
		}
		if name, _, _ := strings.Cut(s, "="); strings.ContainsFunc(name, unicode.IsSpace) {
			return nil, bad(flag, s, "the name holds a blank", "write NAME=VALUE without blanks around the equals sign")
		}
		a, err := parseEnv(host, flag, s)
		if err != nil {
			return nil, err
		}
		if !a.unset {
			out = append(out, a)
		}
	}
	return out, nil
}

// environment collects the assignments of the files, then of -e, in order.
func environment(host Host, files, vars []string) ([]assignment, error) {
	var all []assignment
	for _, file := range files {
		text, err := host.ReadFile(file, envFileLimit)
		if err != nil {
			return nil, advice.Wrap(err, fmt.Sprintf("--env-file %q cannot be read: %s", file, reason(err)), "give a text file with one NAME=VALUE a line")
		}
		as, err := parseEnvFile(host, file, text)
		if err != nil {
			return nil, err
		}
		all = append(all, as...)
	}
	for _, s := range vars {
		a, err := parseEnv(host, "--env", s)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, nil
}

// mergeEnv applies assignments to an environment of NAME=value strings. The
// first place of a name is kept, so that the order is stable; later ones win.
func mergeEnv(base []string, changes []assignment) []string {
	out := make([]string, 0, len(base)+len(changes))
	at := make(map[string]int, len(base)+len(changes))
	set := func(a assignment) {
		i, ok := at[a.name]
		switch {
		case ok && a.unset:
			out[i] = "" // dropped below; a later assignment may fill it again
		case ok:
			out[i] = a.name + "=" + a.value
		case !a.unset:
			at[a.name] = len(out)
			out = append(out, a.name+"="+a.value)
		}
	}
	for _, s := range base {
		name, value, _ := strings.Cut(s, "=")
		set(assignment{name: name, value: value})
	}
	for _, a := range changes {
		set(a)
	}
	kept := out[:0]
	for _, s := range out {
		if s != "" {
			kept = append(kept, s)
		}
	}
	return kept
}
