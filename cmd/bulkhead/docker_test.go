package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestDockerPage finds docs/docker.md as Docker's help, our commands and the
// sessions say.
func TestDockerPage(t *testing.T) {
	t.Setenv(rootVariable, "/elsewhere")
	docker := readDocker(t)
	page := dockerPage(t, docker, usedInScripts(t))
	name := filepath.Join("..", "..", "docs", "docker.md")
	if *update {
		if err := os.WriteFile(name, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if d := cmp.Diff(string(got), page); err != nil || d != "" {
		t.Errorf("docs/docker.md is not current, run go generate ./cmd/bulkhead: %v\n%s", err, d)
	}
}

// dockerVerb is one command of Docker's.
type dockerVerb struct {
	words []string // without "docker"
	short string
	flags []dockerFlag
}

type dockerFlag struct{ name, shorthand string }

func (v dockerVerb) name() string { return strings.Join(v.words, " ") }

// dockerHelp is testdata/docker/help.txt.
type dockerHelp struct {
	version string
	verbs   []dockerVerb
}

var dockerFlagLine = regexp.MustCompile(`^ {2}(?:-(\w), |    )--([a-z0-9-]+)`)

func readDocker(t *testing.T) dockerHelp {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "docker", "help.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var h dockerHelp
	v := &dockerVerb{}
	options, before := false, ""
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "# "):
			h.version = strings.TrimPrefix(line, "# ")
		case strings.HasPrefix(line, "### docker"):
			h.verbs = append(h.verbs, dockerVerb{words: strings.Fields(line)[2:]})
			v, options = &h.verbs[len(h.verbs)-1], false
		case strings.HasSuffix(line, "ptions:"):
			options = true
		case v.short == "" && before == "" && line != "" && !strings.HasPrefix(line, "Usage"):
			v.short = line
		case options:
			if m := dockerFlagLine.FindStringSubmatch(line); m != nil && m[2] != "help" {
				v.flags = append(v.flags, dockerFlag{m[2], m[1]})
			}
		}
		before = line
	}
	return h
}

// bulkheadLine finds the commands of a session.
var bulkheadLine = regexp.MustCompile(`(?:^|[\s!&|;(])bulkhead ([^\n|;&)]*)`)

// refusedLine finds the lines of a session whose command fails: they show what is
// refused, not what is there. What runs in the background and is ended by the
// session fails, too, after it has done what it is shown for; the other exit
// codes are those of programs in workloads.
var refusedLine = regexp.MustCompile(`(?m)^(?:\[.*\] )?(?:status (?:1|125)|! exec) (?:.*[^&\n])$`)

// usedInScripts tells, for each command and for "COMMAND --flag", the first
// session that uses it and succeeds. The lines are parsed by the commands
// themselves.
func usedInScripts(t *testing.T) map[string]string {
	t.Helper()
	used := map[string]string{}
	top := filepath.Join("testdata", "script")
	files, err := filepath.Glob(filepath.Join(top, "*.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	deeper, _ := filepath.Glob(filepath.Join(top, "*", "*.txtar"))
	// What holds behind every boundary is the better witness.
	slices.SortStableFunc(deeper, func(a, b string) int {
		return strings.Compare(filepath.Base(filepath.Dir(a)), filepath.Base(filepath.Dir(b)))
	})
	for _, file := range append(deeper, files...) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		script, _, _ := strings.Cut(string(b), "\n-- ")
		script = strings.ReplaceAll(script, "\\\n", " ")
		script = refusedLine.ReplaceAllString(script, "")
		for _, m := range bulkheadLine.FindAllStringSubmatch(script, -1) {
			for _, key := range parsedLine(words(m[1])) {
				key = canonical(key)
				if rel, _ := filepath.Rel(top, file); used[key] == "" {
					used[key] = rel
				}
			}
		}
	}
	return used
}

// canonical gives the two names of one command of images the same key.
func canonical(key string) string {
	name, flag, _ := strings.Cut(key, " --")
	switch rest, ok := strings.CutPrefix(name, "image "); {
	case !ok:
		return key
	case rest == "ls":
		name = "images"
	case rest == "rm":
		name = "rmi"
	case rest == "inspect" || rest == "prune":
		return key
	default:
		name = rest
	}
	if flag == "" {
		return name
	}
	return name + " --" + flag
}

// words splits a line as testscript does.
func words(line string) (out []string) {
	word, quoted, begun := "", false, false
	for _, c := range line {
		switch {
		case c == '\'':
			quoted, begun = !quoted, true
		case c == ' ' && !quoted:
			if begun {
				out = append(out, word)
			}
			word, begun = "", false
		default:
			word, begun = word+string(c), true
		}
	}
	if begun {
		out = append(out, word)
	}
	return out
}

// parsedLine names the command of a line, and each flag that it sets.
func parsedLine(args []string) (keys []string) {
	root := newApp(testBoundaries()...).command()
	cmd, rest, err := root.Find(args)
	if err != nil || cmd == root {
		return nil
	}
	name := commandName(cmd)
	keys = append(keys, name)
	flags := cmd.Flags()
	flags.SetOutput(nopWriter{})
	flags.AddFlagSet(cmd.InheritedFlags())
	_ = flags.Parse(rest) // what comes before a mistake counts
	flags.Visit(func(f *pflag.Flag) { keys = append(keys, name+" --"+f.Name) })
	return keys
}

type nopWriter struct{}

func (nopWriter) Write(p []byte) (int, error) { return len(p), nil }

// ourName is what a command of Docker's is called here.
func ourName(words []string) []string {
	switch {
	case len(words) == 2 && words[0] == "container" && words[1] == "ls":
		return []string{"ps"}
	case len(words) == 2 && words[0] == "container" && words[1] == "prune":
		return []string{"container", "prune"}
	case len(words) == 2 && words[0] == "container":
		return words[1:]
	}
	return words
}

// find returns our command of a name, nil if there is none.
func find(root *cobra.Command, words []string) *cobra.Command {
	c := root
	for _, w := range words {
		var next *cobra.Command
		for _, sub := range c.Commands() {
			if sub.Name() == w || sub.HasAlias(w) {
				next = sub
			}
		}
		if next == nil {
			return nil
		}
		c = next
	}
	return c
}

// row is one line of the page.
type row struct{ what, status, why string }

// dockerRows compares one command, "" being the command itself.
func dockerRows(root *cobra.Command, v dockerVerb, used map[string]string) (rows []row, same, all int) {
	ours := find(root, ourName(v.words))
	verb := v.name()
	if ours == nil {
		why := absentVerbs[verb]
		if why == "" {
			why = absentVerbs[v.words[0]]
		}
		return []row{{"", "absent", why}}, 0, len(v.flags) + 1
	}
	name := commandName(ours)
	add := func(what, key, different string) {
		all++
		script := used[canonical(key)]
		if flag, ok := strings.CutPrefix(key, "create --"); ok && script == "" {
			script = used["run --"+flag] // the same flags by the same code
		}
		if flag, ok := strings.CutPrefix(key, "run --"); ok && script == "" {
			script = used["create --"+flag]
		}
		switch {
		case different != "":
			same++
			rows = append(rows, row{what, "different", different})
		case script == "":
			rows = append(rows, row{what, "there", "no session shows it"})
		default:
			same++
			rows = append(rows, row{what, "same", "[" + script + "](../cmd/bulkhead/testdata/script/" + script + ")"})
		}
	}
	add("", name, differentVerbs[verb])
	for _, f := range v.flags {
		what := "`--" + f.name + "`"
		if f.shorthand != "" {
			what = "`-" + f.shorthand + "`, " + what
		}
		have := ours.Flags().Lookup(f.name)
		if have == nil {
			all++
			rows = append(rows, row{what, "absent", absentFlag(name, f.name)})
			continue
		}
		different := differentFlags[name+" --"+f.name]
		if f.shorthand != "" && have.Shorthand != f.shorthand {
			different = strings.TrimPrefix(different+"; there is no -"+f.shorthand, "; ")
		}
		add(what, name+" --"+f.name, different)
	}
	return rows, same, all
}

// absentFlag says why there is no such flag.
func absentFlag(command, flag string) string {
	if why := absentFlags[command+" --"+flag]; why != "" {
		return why
	}
	if command == "run" || command == "create" || command == "update" {
		if why := runspec.LaterFlag(flag); why != "" {
			return why
		}
	}
	return absentFlags["--"+flag]
}

// dockerPage is docs/docker.md.
func dockerPage(t *testing.T, docker dockerHelp, used map[string]string) string {
	t.Helper()
	root := newApp(boundaries()...).command()
	var body, absent strings.Builder
	same, all := 0, 0
	for _, v := range docker.verbs {
		if len(v.words) == 0 {
			continue
		}
		if v.words[0] == "container" && v.name() != "container prune" {
			continue // the same commands by a longer name
		}
		ours := find(root, ourName(v.words))
		if ours != nil && ours.HasSubCommands() || ours == nil && isGroup(docker, v) {
			continue
		}
		rows, s, n := dockerRows(root, v, used)
		if ours == nil {
			if rows[0].why == "" {
				t.Errorf("docker %s: absent, and nobody says why", v.name())
			}
			fmt.Fprintf(&absent, "| `%s` | %s | %s |\n", v.name(), v.short, rows[0].why)
			continue
		}
		same, all = same+s, all+n
		fmt.Fprintf(&body, "\n### %s\n\n| | | |\n|---|---|---|\n", v.name())
		for _, r := range rows {
			if r.what == "" {
				r.what = "`" + v.name() + "`"
			}
			if r.why == "" {
				t.Errorf("docker %s %s: %s, and nobody says why", v.name(), r.what, r.status)
			}
			fmt.Fprintf(&body, "| %s | %s | %s |\n", r.what, r.status, r.why)
		}
	}
	return fmt.Sprintf(dockerHead, docker.version, same, all) + body.String() + fmt.Sprintf(dockerAbsent, absent.String())
}

// isGroup tells whether other commands of Docker's are below one.
func isGroup(docker dockerHelp, v dockerVerb) bool {
	return slices.ContainsFunc(docker.verbs, func(o dockerVerb) bool {
		return len(o.words) == len(v.words)+1 && slices.Equal(o.words[:len(v.words)], v.words)
	})
}

const dockerHead = `# Coming from Docker

<!-- Made by ` + "`go generate ./cmd/bulkhead`" + ` from testdata/docker/help.txt, the commands and the sessions. -->

Compared with the help of %s. ` + "`bulkhead VERB`" + ` stands for ` + "`docker VERB`" + `, and
for ` + "`docker container VERB`" + `.

- **same**: it is here by the same name and does the same; the session that shows it is named. Sessions in boundary/ run behind
  every boundary.
- **different**: it is here by the same name, and what is different is said.
- **there**: it is here, and no session shows it.
- **absent**: what to do instead, or why not.

Of Docker's flags on the commands that are here, and of these commands, %d of %d are the same or differ as said. What is the same
everywhere: names and beginnings of IDs, exit codes (but that exec and attach exit with 125 whenever they fail themselves, as run does; Docker has 1
for no such workload), what goes to standard output and what to standard error, templates of
--format, ctrl-p ctrl-q. In the JSON of listings, counts are numbers and yes and no booleans, where Docker writes strings.

## Commands
`

const dockerAbsent = `
## Absent

| | | why |
|---|---|---|
%s`
