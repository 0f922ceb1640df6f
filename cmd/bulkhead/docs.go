package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

//go:generate go test -run ^(TestDocs|TestDockerPage) -update .

// docs returns the pages of docs/cli, by file name: one for each command, and
// an index.
func docs(root *cobra.Command) map[string]string {
	pages := map[string]string{}
	index := &strings.Builder{}
	fmt.Fprintf(index, "# The command line\n\n<!-- Made from the help by `go generate ./cmd/bulkhead`. -->\n\n%s\n", root.Long)
	for _, group := range root.Groups() {
		fmt.Fprintf(index, "\n## %s\n\n", strings.TrimSuffix(group.Title, ":"))
		for _, c := range root.Commands() {
			if c.GroupID == group.ID && documented(c) {
				fmt.Fprintf(index, "- [%s](%s): %s\n", c.Name(), pageName(c), c.Short)
				addPages(pages, c)
			}
		}
	}
	pages["README.md"] = index.String()
	return pages
}

// documented leaves out what cobra adds by itself.
func documented(c *cobra.Command) bool { return c.IsAvailableCommand() && c.Name() != "help" }

// pageName is the file of a command: "run.md", "image-ls.md".
func pageName(c *cobra.Command) string {
	words := strings.Fields(c.CommandPath())
	return strings.Join(words[1:], "-") + ".md"
}

// addPages adds the page of c and of the commands below it.
func addPages(pages map[string]string, c *cobra.Command) {
	b := &strings.Builder{}
	fmt.Fprintf(b, "# %s\n\n<!-- Made from the help by `go generate ./cmd/bulkhead`. -->\n\n%s\n\n", c.CommandPath(), c.Short+".")
	fmt.Fprintf(b, "    %s\n\n%s\n", c.UseLine(), c.Long)
	if c.Example != "" {
		fmt.Fprintf(b, "\n## Examples\n\n```\n%s\n```\n", dedent(c.Example))
	}
	c.InitDefaultHelpFlag()
	if flags := c.NonInheritedFlags().FlagUsagesWrapped(0); flags != "" {
		fmt.Fprintf(b, "\n## Flags\n\n```\n%s\n```\n", dedent(strings.TrimRight(flags, "\n")))
	}
	first := true
	for _, sub := range c.Commands() {
		if !documented(sub) {
			continue
		}
		if first {
			b.WriteString("\n## Commands\n\n")
			first = false
		}
		if other := sub.Annotations[sameAs]; other != "" {
			fmt.Fprintf(b, "- %s: the same as [%s](%s.md)\n", sub.Name(), other, other)
			continue
		}
		fmt.Fprintf(b, "- [%s](%s): %s\n", sub.Name(), pageName(sub), sub.Short)
		addPages(pages, sub)
	}
	pages[pageName(c)] = b.String()
}

// dedent takes away the two spaces that help puts before each line.
func dedent(s string) string {
	return strings.ReplaceAll(strings.TrimPrefix(s, "  "), "\n  ", "\n")
}
