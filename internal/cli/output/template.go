package output

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/template"
	"text/template/parse"
	"unicode"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/safetext"
)

// Template is a user's --format, rewritten so that every value it prints goes
// through safetext. The template's own text is the user's and stays as it is.
type Template struct{ t *template.Template }

// printed is text that is safe already and may hold line breaks on purpose.
type printed string

// escaper is the name of the function that the rewriting adds to each action.
const escaper = "_printable"

// functions are those that Docker's templates have.
var functions = template.FuncMap{
	escaper: printable,
	"json": func(v any) (printed, error) {
		s, err := marshal(v, "")
		return printed(strings.TrimSuffix(s, "\n")), err
	},
	"join":  func(list any, sep string) string { return strings.Join(stringList(list), sep) },
	"lower": strings.ToLower,
	"upper": strings.ToUpper,
	"title": title,
	"split": strings.Split,
	"pad": func(s string, before, after int) string {
		if s == "" {
			return s
		}
		return strings.Repeat(" ", max(before, 0)) + s + strings.Repeat(" ", max(after, 0))
	},
	"truncate": func(s string, n int) string {
		if r := []rune(s); n >= 0 && len(r) > n {
			return string(r[:n])
		}
		return s
	},
	"println": func(v ...any) printed {
		return printed(safetext.Line(strings.TrimSuffix(fmt.Sprintln(v...), "\n")) + "\n")
	},
}

// headerFunctions are the functions for the headers of a table, which, as in
// Docker, nothing cuts short, quotes or spells otherwise.
func headerFunctions() template.FuncMap {
	same := func(header any, _ ...any) any { return header }
	m := template.FuncMap{}
	for _, name := range []string{"json", "join", "lower", "upper", "title", "split", "pad", "truncate"} {
		m[name] = same
	}
	return m
}

// printable is the escaper: what the action would print, made safe.
func printable(v any) string {
	switch v := v.(type) {
	case printed:
		return string(v)
	case nil:
		return "<no value>"
	}
	return safetext.Line(fmt.Sprint(v))
}

// title makes the first letter of a word upper case.
func title(s string) string {
	for i, r := range s {
		return string(unicode.ToUpper(r)) + s[i+len(string(r)):]
	}
	return s
}

// stringList turns a list of anything into strings.
func stringList(list any) []string {
	v := reflect.ValueOf(list)
	if v.Kind() != reflect.Slice && v.Kind() != reflect.Array {
		return []string{fmt.Sprint(list)}
	}
	out := make([]string, v.Len())
	for i := range out {
		out[i] = fmt.Sprint(v.Index(i).Interface())
	}
	return out
}

// Parse reads a format. As in Docker, \t and \n may be written out. The words
// "json" and "table" are not formats here; Write knows them.
func Parse(format string) (*Template, error) {
	format = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(format)
	t, err := template.New("format").Funcs(functions).Parse(format)
	if err != nil {
		return nil, formatError(err, format)
	}
	for _, each := range t.Templates() {
		if each.Tree != nil {
			rewrite(each.Tree, each.Root)
		}
	}
	return &Template{t}, nil
}

// rewrite adds the escaper to every action below n that prints something.
func rewrite(tree *parse.Tree, n parse.Node) {
	switch n := n.(type) {
	case *parse.ListNode:
		if n == nil {
			return
		}
		for _, child := range n.Nodes {
			rewrite(tree, child)
		}
	case *parse.ActionNode:
		if len(n.Pipe.Decl) == 0 { // an assignment prints nothing
			id := parse.NewIdentifier(escaper).SetPos(n.Pos).SetTree(tree)
			n.Pipe.Cmds = append(n.Pipe.Cmds, &parse.CommandNode{NodeType: parse.NodeCommand, Pos: n.Pos, Args: []parse.Node{id}})
		}
	case *parse.IfNode:
		rewriteBranch(tree, &n.BranchNode)
	case *parse.RangeNode:
		rewriteBranch(tree, &n.BranchNode)
	case *parse.WithNode:
		rewriteBranch(tree, &n.BranchNode)
	}
}

func rewriteBranch(tree *parse.Tree, n *parse.BranchNode) {
	rewrite(tree, n.List)
	if n.ElseList != nil {
		rewrite(tree, n.ElseList)
	}
}

// Execute runs the template on v.
func (t *Template) Execute(w io.Writer, v any) error {
	if err := t.t.Execute(w, v); err != nil {
		return formatError(err, t.t.Root.String())
	}
	return nil
}

// headers returns the same template for the headers of a table. A field without a
// header does not exist.
func (t *Template) headers() (*Template, error) {
	head, err := t.t.Clone()
	if err != nil {
		return nil, err
	}
	return &Template{head.Option("missingkey=error").Funcs(headerFunctions())}, nil
}

// line runs the template on v and ends the line.
func (t *Template) line(w io.Writer, v any) error {
	var b strings.Builder
	if err := t.Execute(&b, v); err != nil {
		return err
	}
	_, err := io.WriteString(w, b.String()+"\n")
	return err
}

var errNoField = errors.New("no such field")

// formatError says what is wrong with a template in one sentence.
func formatError(err error, format string) error {
	text := strings.TrimPrefix(err.Error(), "template: ")
	text = strings.ReplaceAll(text, "|"+escaper, "")
	if _, field, ok := strings.Cut(text, "can't evaluate field "); ok { // in type …: one of ours
		field, _, _ = strings.Cut(field, " ")
		text = "there is no field " + field
		err = fmt.Errorf("%w: %w", errNoField, err)
	}
	return advice.Wrap(err, fmt.Sprintf("--format %q: %s", strings.ReplaceAll(format, " | "+escaper, ""), text),
		"--format json shows the names of the fields; a field is printed by {{.Name}}")
}
