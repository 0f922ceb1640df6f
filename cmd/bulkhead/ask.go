package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/terminal"
)

// errNobody tells that there is no terminal to ask at.
var errNobody = errors.New("standard input is not a terminal")

// ask puts a yes-or-no question to the person at in; no is the default.
func ask(in *os.File, out io.Writer, question string) (bool, error) {
	if !terminal.IsTerminal(in) {
		return false, errNobody
	}
	fmt.Fprintf(out, "%s [y/N] ", question)
	line, err := bufio.NewReader(io.LimitReader(in, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes", nil
}
