package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The limits of input, so that whoever wrote a file cannot make its reader use
// unbounded memory or stack.
const (
	MaxInput      = 16 << 20 // bytes
	maxDepth      = 64
	maxValues     = 1 << 20
	maxContainers = 1024
	maxEvidence   = 400 // bytes of one value in evidence
)

// ErrMalformed tells that input is not what it was taken for. The error's text
// says in one sentence where.
var ErrMalformed = errors.New("malformed input")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

// node is one JSON value and where it is. The value is nil for one that is null or
// not there, and else a bool, a json.Number, a string, a []any or an object.
type node struct {
	path  string
	value any
	f     *fault
}

// fault is the first thing wrong with a text, whoever finds it.
type fault struct{ err error }

// object has its members in the order of the text, for evidence that reads like it.
type object struct {
	names []string
	by    map[string]any
}

// parseJSON reads one JSON value. Unlike encoding/json it tells names apart that
// differ in case, and refuses one that is there twice: two readers of one text could
// otherwise see two things.
func parseJSON(b []byte) (any, error) {
	if len(b) > MaxInput {
		return nil, malformed("more than %d bytes", MaxInput)
	}
	if !utf8.Valid(b) {
		return nil, malformed("text that is not UTF-8")
	}
	p := parser{d: json.NewDecoder(bytes.NewReader(b)), text: b}
	p.d.UseNumber()
	v, err := p.value(0)
	if err != nil {
		return nil, err
	}
	if _, err := p.d.Token(); !errors.Is(err, io.EOF) {
		return nil, malformed("%s: something follows the value", p.place())
	}
	return v, nil
}

type parser struct {
	d    *json.Decoder
	text []byte
	n    int // values so far
}

// place is where the parser is, for a person.
func (p *parser) place() string { return lineColumn(p.text, p.d.InputOffset()) }

func lineColumn(text []byte, offset int64) string {
	before := text[:max(0, min(int(offset), len(text)))]
	return fmt.Sprintf("line %d, column %d", 1+bytes.Count(before, []byte{'\n'}), len(before)-bytes.LastIndexByte(before, '\n'))
}

func (p *parser) token() (json.Token, error) {
	t, err := p.d.Token()
	var syntax *json.SyntaxError
	switch {
	case err == nil:
		return t, nil
	case errors.As(err, &syntax):
		return nil, malformed("%s: %s", lineColumn(p.text, syntax.Offset-1), syntax.Error())
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, malformed("%s: the text ends in the middle", lineColumn(p.text, int64(len(p.text))))
	}
	return nil, malformed("%s: %w", p.place(), err)
}

func (p *parser) value(depth int) (any, error) {
	if p.n++; p.n > maxValues {
		return nil, malformed("%s: more than %d values", p.place(), maxValues)
	}
	t, err := p.token()
	if err != nil {
		return nil, err
	}
	open, ok := t.(json.Delim)
	switch {
	case !ok:
		return t, nil
	case depth >= maxDepth:
		return nil, malformed("%s: nested deeper than %d", p.place(), maxDepth)
	case open == '[':
		list := []any{}
		for p.d.More() {
			v, err := p.value(depth + 1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = p.token()
		return list, err
	}
	o := object{by: map[string]any{}}
	for p.d.More() {
		t, err := p.token()
		if err != nil {
			return nil, err
		}
		name, ok := t.(string)
		if !ok {
			return nil, malformed("%s: a name is missing", p.place())
		}
		if _, twice := o.by[name]; twice {
			return nil, malformed("%s: %.100q is there twice", p.place(), name)
		}
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		o.names, o.by[name] = append(o.names, name), v
	}
	_, err = p.token()
	return o, err
}

// there reports whether a value is there and not null.
func (n node) there() bool { return n.value != nil }

// wrong notes that n is not what it has to be.
func (n node) wrong(want string) {
	if n.f.err == nil {
		n.f.err = malformed("%s is %s, want %s", n.name(), kindOf(n.value), want)
	}
}

func (n node) name() string {
	if n.path == "" {
		return "the whole"
	}
	return n.path
}

func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "true or false"
	case json.Number:
		return "a number"
	case string:
		return "a string"
	case []any:
		return "a list"
	}
	return "an object"
}

// get returns a member, by names one beneath the other.
func (n node) get(names ...string) node {
	for _, name := range names {
		o, ok := n.value.(object)
		if !ok && n.value != nil {
			n.wrong("an object")
		}
		child := node{path: member(n.path, name), f: n.f}
		if ok {
			child.value = o.by[name]
		}
		n = child
	}
	return n
}

// member is the path of a member. A name has a part in it: the path is that of each
// element below, too.
func member(path, name string) string {
	const most = 100
	if len(name) > most {
		name = strings.ToValidUTF8(name[:most], "") + "…"
	}
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" || name == "" {
		return path + "[" + strconv.Quote(name) + "]"
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

// has reports whether an object has a member, be it null.
func (n node) has(name string) bool {
	o, ok := n.value.(object)
	if !ok {
		return false
	}
	_, ok = o.by[name]
	return ok
}

func as[T any](n node, want string) (v T, ok bool) {
	if n.value == nil {
		return v, false
	}
	if v, ok = n.value.(T); !ok {
		n.wrong(want)
	}
	return v, ok
}

func (n node) str() (string, bool) { return as[string](n, "a string") }

// text is str with "" for what is not there.
func (n node) text() string {
	s, _ := n.str()
	return s
}

func (n node) boolean() (bool, bool) { return as[bool](n, "true or false") }

func (n node) number() (int64, bool) {
	v, ok := as[json.Number](n, "a number")
	if !ok {
		return 0, false
	}
	i, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil {
		if u, unsigned := strconv.ParseUint(string(v), 10, 64); unsigned == nil && u > 0 {
			return 1<<63 - 1, true // cgroup's "no limit" as an unsigned number
		}
		n.wrong("a whole number of 64 bits")
		return 0, false
	}
	return i, true
}

// list returns the elements of a list.
func (n node) list() []node {
	v, _ := as[[]any](n, "a list")
	out := make([]node, len(v))
	for i := range v {
		out[i] = node{fmt.Sprintf("%s[%d]", n.path, i), v[i], n.f}
	}
	return out
}

// strings returns a list of strings.
func (n node) strings() []string {
	var out []string
	for _, e := range n.list() {
		s, ok := e.str()
		if !ok {
			e.wrong("a string")
		}
		out = append(out, s)
	}
	return out
}

// members returns those of an object in their order.
func (n node) members() (names []string, nodes []node) {
	o, _ := as[object](n, "an object")
	for _, name := range o.names {
		names, nodes = append(names, name), append(nodes, n.get(name))
	}
	return names, nodes
}

// json is n as JSON text, of at most max bytes if max is not 0.
func (n node) json(max int) string {
	var b strings.Builder
	write(&b, n.value, max)
	if max > 0 && b.Len() > max {
		return strings.ToValidUTF8(b.String()[:max], "") + "…"
	}
	return b.String()
}

func write(b *strings.Builder, v any, max int) {
	if max > 0 && b.Len() > max {
		return
	}
	switch v := v.(type) {
	case object:
		b.WriteByte('{')
		for i, name := range v.names {
			if i > 0 {
				b.WriteByte(',')
			}
			write(b, name, 0)
			b.WriteByte(':')
			write(b, v.by[name], max)
		}
		b.WriteByte('}')
	case []any:
		b.WriteByte('[')
		for i := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			write(b, v[i], max)
		}
		b.WriteByte(']')
	case json.Number:
		b.WriteString(string(v))
	default:
		var out bytes.Buffer
		e := json.NewEncoder(&out)
		e.SetEscapeHTML(false)
		if e.Encode(v) == nil { // a bool, a string or nil
			b.Write(bytes.TrimSuffix(out.Bytes(), []byte{'\n'}))
		}
	}
}
