// Package auditing finds what `bulkhead audit` judges: the containers of other
// engines by their own command lines, files, and the programs of this machine that
// containers rely on. Package audit judges.
package auditing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/audit"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/capped"
)

// patience is how long a program may take to answer.
const patience = 20 * time.Second

// Tool is the command line of another engine. It is asked instead of the engine's
// socket: it knows where that is, and what it may ask.
type Tool struct {
	Kind audit.Kind // Docker or Podman
	// Run runs a program with arguments and returns what it prints, of limited size.
	Run func(ctx context.Context, program string, args ...string) ([]byte, error)
}

// ErrNotInstalled tells that a program is not on the search path.
var ErrNotInstalled = errors.New("it is not installed")

// Run runs a program of the search path with an environment that has it speak
// English. What it prints is limited in size, and so is the time that it has.
func Run(ctx context.Context, program string, args ...string) ([]byte, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, ErrNotInstalled
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = time.Second
	out, stderr := capped.Buffer{Max: audit.MaxInput + 1}, capped.Buffer{Max: 4096}
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err = cmd.Run()
	switch {
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, fmt.Errorf("it did not answer for %s", patience)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		if line, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n"); line != "" {
			return nil, errors.New(line)
		}
		return nil, err
	}
	return out.Bytes(), nil
}

// engine asks for the engine's defaults.
func (t Tool) engine(ctx context.Context) (*audit.Engine, error) {
	b, err := t.Run(ctx, string(t.Kind), "info", "--format", "{{json .}}")
	if err != nil {
		return nil, err
	}
	e, err := audit.ParseEngine(t.Kind, b)
	if err != nil {
		return nil, err
	}
	if p := e.Profile.Value; strings.HasPrefix(p, "/") {
		// Where it cannot be read, what it closes stays unknown.
		e.ProfileText, _ = ReadFile(p)
	}
	return e, nil
}

// Containers returns the named containers of the engine, or all. Of all, it returns
// those that it could look at beside an error that tells of the others.
func (t Tool) Containers(ctx context.Context, names ...string) ([]*audit.Config, error) {
	all := len(names) == 0
	if all {
		var err error
		if names, err = t.list(ctx); err != nil || len(names) == 0 {
			return nil, err
		}
	}
	engine, err := t.engine(ctx)
	if err != nil {
		return nil, err
	}
	var found []*audit.Config
	failed := map[string]error{}
	for _, name := range names {
		list, err := t.inspect(ctx, name, engine)
		if err != nil && !all {
			return nil, err
		}
		if err != nil {
			failed[name] = err
		}
		found = append(found, list...)
	}
	return found, t.stillThere(ctx, failed)
}

// list returns the IDs of all containers.
func (t Tool) list(ctx context.Context) ([]string, error) {
	out, err := t.Run(ctx, string(t.Kind), "ps", "--all", "--quiet", "--no-trunc")
	return strings.Fields(string(out)), err
}

func (t Tool) inspect(ctx context.Context, name string, engine *audit.Engine) ([]*audit.Config, error) {
	b, err := t.Run(ctx, string(t.Kind), "inspect", "--type", "container", "--", name)
	if err != nil {
		return nil, err
	}
	list, err := audit.Parse(t.Kind, b, engine)
	if err != nil {
		return nil, fmt.Errorf("%s inspect %s: %w", t.Kind, name, err)
	}
	for _, c := range list {
		c.Target = string(t.Kind) + ":" + c.Name
	}
	return list, nil
}

// stillThere returns an error for the containers that could not be looked at and are
// not gone since.
func (t Tool) stillThere(ctx context.Context, failed map[string]error) error {
	if len(failed) == 0 {
		return nil
	}
	names, err := t.list(ctx)
	if err != nil {
		return fmt.Errorf("%d could not be looked at, and whether they are gone is not known: %w", len(failed), err)
	}
	var there []string
	for _, name := range names {
		if failed[name] != nil {
			there = append(there, name)
		}
	}
	if len(there) == 0 {
		return nil
	}
	return fmt.Errorf("%d could not be looked at, the first of them %.12s: %w", len(there), there[0], failed[there[0]])
}

// ReadFile reads a file of limited size, or standard input for "-".
func ReadFile(name string) ([]byte, error) {
	f := os.Stdin
	if name != "-" {
		var err error
		if f, err = os.Open(name); err != nil {
			return nil, err
		}
		defer f.Close()
	}
	b, err := io.ReadAll(io.LimitReader(f, audit.MaxInput+1))
	if err == nil && len(b) > audit.MaxInput {
		err = fmt.Errorf("%w: more than %d bytes", audit.ErrMalformed, audit.MaxInput)
	}
	return b, err
}

// File reads configurations from a file. Kind is "" to find it out; info names a
// file with what `docker info` or `podman info` print as JSON, "" for none.
func File(name string, kind audit.Kind, info string) ([]*audit.Config, error) {
	b, err := ReadFile(name)
	if err != nil {
		return nil, err
	}
	if kind == "" {
		if kind, err = audit.Detect(b); err != nil {
			return nil, err
		}
	}
	var engine *audit.Engine
	if info != "" {
		text, err := ReadFile(info)
		if err != nil {
			return nil, err
		}
		if engine, err = audit.ParseEngine(kind, text); err != nil {
			return nil, fmt.Errorf("%s: %w", info, err)
		}
	}
	list, err := audit.Parse(kind, b, engine)
	if err != nil {
		return nil, err
	}
	label := name
	if name == "-" {
		label = "standard input"
	}
	for _, c := range list {
		c.Target, c.Label = name, label
		if len(list) > 1 {
			c.Label = label + ": " + c.Name
		}
	}
	return list, nil
}
