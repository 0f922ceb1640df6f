// Package ocispec reads the runtime specification's documents: a bundle's
// config.json, the process of an exec, the resources of an update. What it
// returns has been checked against the rules of the specification (version
// 1.3) and holds nothing that this runtime would silently leave out.
//
// The documents are hostile input: their size is bounded before they are
// parsed, and no content makes this package panic.
//
//	Load ─▶ decode ─▶ Validate ─▶ *specs.Spec
//	                      │
//	                      ├─ rules of the specification (root.go, process.go, linux.go)
//	                      └─ refusals: what is asked for and cannot be done (refuse.go)
//
// Every error is one sentence that begins with the path of the property, such
// as "process.cwd: …".
package ocispec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ConfigName is the name of a bundle's configuration (runtime-spec, bundle.md).
const ConfigName = "config.json"

// MaxSize bounds a document, in bytes. Configurations of real engines have 5
// to 60 kB.
const MaxSize = 4 << 20

// ErrTooLarge is returned for a document of more than MaxSize bytes.
var ErrTooLarge = fmt.Errorf("larger than %d bytes", MaxSize)

// Load reads and checks the configuration of the bundle in dir. It also
// returns the document's text, so that it can be kept: later changes to the
// bundle must not affect the container (runtime-spec, runtime.md, lifecycle).
func Load(dir string) (*specs.Spec, []byte, error) {
	f, err := os.Open(filepath.Join(dir, ConfigName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, fmt.Errorf("bundle %s has no %s: %w", dir, ConfigName, err)
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	text, err := readAll(f)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	s, err := Parse(text)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return s, text, nil
}

// Parse reads and checks a configuration.
func Parse(text []byte) (*specs.Spec, error) {
	var d document
	if err := decode(text, &d); err != nil {
		return nil, err
	}
	s := d.spec()
	if err := Validate(s); err != nil {
		return nil, err
	}
	return s, nil
}

// document is specs.Spec without the insides of other platforms' sections.
// Package json prepares for every type that it can reach before it reads the
// first byte, which for specs.Spec takes longer than the reading.
type document struct {
	Version     string            `json:"ociVersion"`
	Process     *specs.Process    `json:"process"`
	Root        *specs.Root       `json:"root"`
	Hostname    string            `json:"hostname"`
	Domainname  string            `json:"domainname"`
	Mounts      []specs.Mount     `json:"mounts"`
	Hooks       *specs.Hooks      `json:"hooks"`
	Annotations map[string]string `json:"annotations"`
	Linux       *specs.Linux      `json:"linux"`
	VM          json.RawMessage   `json:"vm"`
}

func (d *document) spec() *specs.Spec {
	s := &specs.Spec{
		Version: d.Version, Process: d.Process, Root: d.Root, Hostname: d.Hostname, Domainname: d.Domainname,
		Mounts: d.Mounts, Hooks: d.Hooks, Annotations: d.Annotations, Linux: d.Linux,
	}
	if len(d.VM) > 0 && string(d.VM) != "null" {
		s.VM = &specs.VM{} // to be refused by name
	}
	return s
}

// ReadProcess reads the process of an exec. It is not checked yet: the caller
// completes it from the container's own process first, then calls
// ValidateProcess.
func ReadProcess(r io.Reader) (*specs.Process, error) {
	p := new(specs.Process)
	return p, read(r, p)
}

// ReadResources reads and checks the resources of an update.
func ReadResources(r io.Reader) (*specs.LinuxResources, error) {
	res := new(specs.LinuxResources)
	if err := read(r, res); err != nil {
		return nil, err
	}
	return res, validateResources("resources", res)
}

func read(r io.Reader, v any) error {
	text, err := readAll(r)
	if err != nil {
		return err
	}
	return decode(text, v)
}

func readAll(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return nil, err
	}
	if len(text) > MaxSize {
		return nil, ErrTooLarge
	}
	return text, nil
}

// decode parses text. Unknown properties are ignored, as the specification
// demands (config.md, extensibility). A string with a NUL byte is refused
// wherever it stands: the kernel would see only what comes before it.
func decode(text []byte, v any) error {
	if hasNUL(text) {
		return errors.New("a string holds a NUL character")
	}
	if err := json.Unmarshal(text, v); err != nil {
		return explain(text, err)
	}
	return nil
}

// hasNUL looks for the escape \u0000. An unescaped NUL is not JSON and is left
// to the parser.
func hasNUL(text []byte) bool {
	for rest := text; ; {
		i := bytes.Index(rest, []byte(`\u0000`))
		if i < 0 {
			return false
		}
		backslashes := 0
		for j := i; j >= 0 && rest[j] == '\\'; j-- {
			backslashes++
		}
		if backslashes%2 == 1 {
			return true
		}
		rest = rest[i+1:]
	}
}

// explain turns the parser's error into one that says where in the document it
// lies.
func explain(text []byte, err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("line %d is not JSON: %w", line(text, syntax.Offset), err)
	}
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) && kind.Field != "" {
		return fmt.Errorf("%s: a %s cannot be read as %s (line %d)", kind.Field, kind.Value, kind.Type, line(text, kind.Offset))
	}
	return err
}

func line(text []byte, offset int64) int {
	offset = min(max(offset, 0), int64(len(text)))
	return 1 + bytes.Count(text[:offset], []byte("\n"))
}
