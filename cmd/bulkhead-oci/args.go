package main

import (
	"fmt"
	"strconv"
	"strings"
)

// option is one flag of the command line. Engines call runtimes with -flag and
// --flag, with =VALUE and with VALUE as the next argument; all are one here.
type option struct {
	name  string
	short string // one letter, may be empty
	value string // what the value is called in the help; empty for a switch
	help  string // empty: accepted, not shown
}

// values are the flags that were given, by name. A switch has the value
// "true" or "false".
type values map[string][]string

// given reports whether the flag was named at all.
func (v values) given(name string) bool { return len(v[name]) > 0 }

// last returns the last value given, or otherwise.
func (v values) last(name, otherwise string) string {
	if l := v[name]; len(l) > 0 {
		return l[len(l)-1]
	}
	return otherwise
}

// on reports whether a switch is on.
func (v values) on(name string) bool { return v.last(name, "false") == "true" }

// number returns the value of a flag that is a decimal number.
func (v values) number(name string, otherwise int) (int, error) {
	s := v.last(name, "")
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf("--%s: %q is not a number", name, s)
	}
	return n, nil
}

// usageError is a mistake in the command line.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

func usagef(format string, a ...any) error { return &usageError{fmt.Sprintf(format, a...)} }

// parse splits args into flags and the rest. With stopAtFirst everything from
// the first argument that is no flag on is rest: the command line of another
// program, or a verb and what belongs to it. Otherwise flags may stand
// anywhere. "--" ends the flags.
func parse(options []option, args []string, stopAtFirst bool) (v values, rest []string, err error) {
	v = values{}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			return v, append(rest, args...), nil
		case len(arg) < 2 || arg[0] != '-':
			rest = append(rest, arg)
			if stopAtFirst {
				return v, append(rest, args...), nil
			}
			continue
		}
		name, value, has := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
		o := find(options, name)
		switch {
		case o == nil:
			return nil, nil, usagef("unknown flag %s", arg)
		case o.value == "" && has:
			on, err := strconv.ParseBool(value)
			if err != nil {
				return nil, nil, usagef("--%s: %q is neither true nor false", o.name, value)
			}
			value = strconv.FormatBool(on)
		case o.value == "":
			value = "true"
		case !has && len(args) == 0:
			return nil, nil, usagef("--%s needs a value", o.name)
		case !has:
			value, args = args[0], args[1:]
		}
		v[o.name] = append(v[o.name], value)
	}
	return v, rest, nil
}

func find(options []option, name string) *option {
	for i := range options {
		if o := &options[i]; name != "" && (o.name == name || o.short == name) {
			return o
		}
	}
	return nil
}
