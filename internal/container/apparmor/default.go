package apparmor

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// DefaultName is the name of the default profile. Its number is raised with
// every change of the text: a name that is loaded is taken as it is, so that
// starting a container costs no compilation, and an updated bulkhead must not
// take an older text for its own.
const DefaultName = "bulkhead-default-1"

//go:embed default.profile
var defaultText string

// DefaultText returns the source of the default profile.
func DefaultText() string { return defaultText }

// ErrNoParser says that the program which compiles profiles is missing.
var ErrNoParser = errors.New("apparmor: apparmor_parser not found; install the package apparmor, or load the default profile at boot")

// EnsureDefault loads the default profile unless it is loaded. It fails if the
// profile is loaded but does not enforce: someone has put it into complain
// mode, and containers would silently run without it.
func (h Host) EnsureDefault(ctx context.Context) error {
	mode, err := h.Loaded(DefaultName)
	if notLoaded := (*NotLoadedError)(nil); errors.As(err, &notLoaded) {
		if err := h.load(ctx, defaultText); err != nil {
			return err
		}
		mode, err = h.Loaded(DefaultName)
	}
	if err != nil {
		return err
	}
	if !mode.Enforces() {
		return fmt.Errorf("apparmor: profile %s is loaded in %s mode; run aa-enforce %s", DefaultName, mode, DefaultName)
	}
	return nil
}

// parserPaths are where distributions put the parser; users often lack sbin in
// their PATH.
var parserPaths = []string{"/sbin/apparmor_parser", "/usr/sbin/apparmor_parser"}

func (h Host) findParser() (string, error) {
	if h.parser != "" {
		return h.parser, nil
	}
	for _, p := range parserPaths {
		if info, err := os.Stat(p); err == nil && info.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	if p, err := exec.LookPath("apparmor_parser"); err == nil {
		return p, nil
	}
	return "", ErrNoParser
}

// load compiles a profile and hands it to the kernel. The parser reads it from
// its standard input, neither reads nor writes its cache, and replaces a
// profile that another command has loaded at the same time: it is the same.
func (h Host) load(ctx context.Context, text string) error {
	parser, err := h.findParser()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, parser, "--replace", "--skip-cache")
	cmd.Stdin = strings.NewReader(text)
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	var said tail
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("apparmor: load profile %s with %s: %w: %s", DefaultName, parser, err, said.line())
	}
	return nil
}

// A tail keeps the end of what a program says.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	const limit = 1024
	t.b = append(t.b, p[max(0, len(p)-limit):]...)
	t.b = append(t.b[:0], t.b[max(0, len(t.b)-limit):]...)
	return len(p), nil
}

// line returns the last line that is not empty.
func (t *tail) line() string {
	b := bytes.TrimSpace(t.b)
	return string(b[bytes.LastIndexByte(b, '\n')+1:])
}
