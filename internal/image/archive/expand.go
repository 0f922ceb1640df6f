package archive

import (
	"errors"
	"fmt"
	"strings"
)

var errOpen = errors.New("a quote, brace or backslash is left open")

// expand takes quotes and backslashes out of a word of a Dockerfile, and puts the
// values of env, a list of NAME=value, in the place of variables: $NAME, ${NAME},
// and with -, + or ? and a word behind the name, or behind it and a colon, what
// sh(1) makes of these. A variable that is not set is empty.
func expand(word string, env []string) (string, error) {
	return (&expander{rest: word, env: env}).until(0)
}

type expander struct {
	rest string
	env  []string
}

// until expands up to an unquoted stop, which it takes; 0 is the end of the word.
func (x *expander) until(stop byte) (string, error) {
	var out strings.Builder
	for x.rest != "" {
		c := x.rest[0]
		x.rest = x.rest[1:]
		var part string
		var err error
		switch {
		case c == stop && stop != 0:
			return out.String(), nil
		case c == '\'':
			var closed bool
			if part, x.rest, closed = strings.Cut(x.rest, "'"); !closed {
				err = errOpen
			}
		case c == '"':
			part, err = x.quoted()
		case c == '\\':
			if x.rest == "" {
				return "", errOpen
			}
			part, x.rest = x.rest[:1], x.rest[1:]
		case c == '$':
			part, err = x.variable()
		default:
			part = string([]byte{c})
		}
		if err != nil {
			return "", err
		}
		out.WriteString(part)
	}
	if stop != 0 {
		return "", errOpen
	}
	return out.String(), nil
}

// quoted expands up to the closing double quote. A backslash is one unless what
// follows means something there.
func (x *expander) quoted() (string, error) {
	var out strings.Builder
	for x.rest != "" {
		c := x.rest[0]
		x.rest = x.rest[1:]
		switch {
		case c == '"':
			return out.String(), nil
		case c == '\\' && x.rest != "" && strings.IndexByte(`"$\`, x.rest[0]) >= 0:
			out.WriteByte(x.rest[0])
			x.rest = x.rest[1:]
		case c == '$':
			v, err := x.variable()
			if err != nil {
				return "", err
			}
			out.WriteString(v)
		default:
			out.WriteByte(c)
		}
	}
	return "", errOpen
}

// variable expands what follows a dollar sign.
func (x *expander) variable() (string, error) {
	if !strings.HasPrefix(x.rest, "{") {
		name := x.name()
		if name == "" {
			return "$", nil
		}
		v, _ := x.value(name)
		return v, nil
	}
	x.rest = x.rest[1:]
	name := x.name()
	if name == "" {
		return "", errors.New("want the name of a variable after ${")
	}
	v, set := x.value(name)
	if strings.HasPrefix(x.rest, "}") {
		x.rest = x.rest[1:]
		return v, nil
	}
	if strings.HasPrefix(x.rest, ":") {
		x.rest = x.rest[1:]
		set = set && v != ""
	}
	if x.rest == "" {
		return "", errOpen
	}
	modifier := x.rest[0]
	x.rest = x.rest[1:]
	if strings.IndexByte("-+?", modifier) < 0 {
		return "", fmt.Errorf("${%s and then %q: want -, + or ?, perhaps after a colon", name, modifier)
	}
	word, err := x.until('}')
	switch {
	case err != nil:
		return "", err
	case modifier == '+' && !set:
		return "", nil
	case modifier == '+' || modifier == '-' && !set:
		return word, nil
	case modifier == '?' && !set:
		return "", fmt.Errorf("%s is not set, or empty: %q", name, word)
	}
	return v, nil
}

// name takes the name of a variable, "" if there is none. The shell's parameters, such
// as $1 and $@, are variables that nobody sets.
func (x *expander) name() string {
	n := len(x.rest) - len(strings.TrimLeft(x.rest, "0123456789"))
	if n == 0 && x.rest != "" && strings.IndexByte("@*#?-$!", x.rest[0]) >= 0 {
		n = 1
	}
	for special := n > 0; !special && n < len(x.rest); n++ {
		c := x.rest[n]
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (n == 0 || c < '0' || c > '9') {
			break
		}
	}
	name := x.rest[:n]
	x.rest = x.rest[n:]
	return name
}

func (x *expander) value(name string) (value string, set bool) {
	for _, e := range x.env {
		if k, v, _ := strings.Cut(e, "="); k == name {
			return v, true
		}
	}
	return "", false
}
