package manifest

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Config is the image's config document (image-spec, config.md).
type Config struct {
	Created *time.Time `json:"created,omitempty"`
	Author  string     `json:"author,omitempty"`
	Platform
	Config  RunConfig `json:"config"`
	RootFS  RootFS    `json:"rootfs"`
	History []History `json:"history,omitempty"`
}

// RunConfig is how a container of the image is to be run, before the user's
// flags are laid over it.
type RunConfig struct {
	User         string              `json:"User,omitempty"` // name or ID, with an optional :group
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	Env          []string            `json:"Env,omitempty"` // NAME=value
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Cmd          []string            `json:"Cmd,omitempty"`
	Volumes      map[string]struct{} `json:"Volumes,omitempty"` // absolute paths inside
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"` // "SIGTERM", "TERM" or a number
	Healthcheck  *Healthcheck        `json:"Healthcheck,omitempty"`
	Shell        []string            `json:"Shell,omitempty"`
}

// RunConfigFields are the names of RunConfig's fields in a config.
func RunConfigFields() []string {
	var names []string
	t := reflect.TypeFor[RunConfig]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// Healthcheck is Docker's extension of the config; times are nanoseconds.
type Healthcheck struct {
	Test          []string      `json:"Test,omitempty"` // {"NONE"}, {"CMD", …} or {"CMD-SHELL", "…"}
	Interval      time.Duration `json:"Interval,omitempty"`
	Timeout       time.Duration `json:"Timeout,omitempty"`
	StartPeriod   time.Duration `json:"StartPeriod,omitempty"`
	StartInterval time.Duration `json:"StartInterval,omitempty"`
	Retries       int           `json:"Retries,omitempty"`
}

// RootFS lists the digests of the uncompressed layers, lowest first.
type RootFS struct {
	Type    string          `json:"type"`
	DiffIDs []digest.Digest `json:"diff_ids"`
}

// History is one step of how the image was made.
type History struct {
	Created    *time.Time `json:"created,omitempty"`
	CreatedBy  string     `json:"created_by,omitempty"`
	Author     string     `json:"author,omitempty"`
	Comment    string     `json:"comment,omitempty"`
	EmptyLayer bool       `json:"empty_layer,omitempty"`
}

// envName reports whether a variable can have a name. It is deliberately wide:
// POSIX leaves names to the programs, and images use dots and dashes. What cannot
// be is an empty name, '=' or NUL.
func envName(name string) bool { return name != "" && !strings.ContainsAny(name, "=\x00") }

// ParseConfig reads and checks a config. After it, strings that will become
// arguments, variables or paths hold no NUL byte, volumes and the working
// directory are absolute or empty, and the digests are valid.
func ParseConfig(raw []byte) (*Config, error) {
	var c Config
	if err := decode("config", raw, MaxConfigBytes, &c); err != nil {
		return nil, err
	}
	if c.OS == "" || c.Architecture == "" {
		return nil, fmt.Errorf("%w: the config names no operating system or architecture", ErrInvalid)
	}
	if t := c.RootFS.Type; t != "layers" {
		return nil, fmt.Errorf("%w: config: rootfs type %s, want layers", ErrInvalid, clip(t))
	}
	if n := len(c.RootFS.DiffIDs); n > MaxLayers {
		return nil, fmt.Errorf("%w: config: %d layers, at most %d are supported", ErrInvalid, n, MaxLayers)
	}
	for i, d := range c.RootFS.DiffIDs {
		if err := CheckDigest(d); err != nil {
			return nil, fmt.Errorf("%w: config: layer %d: %s", ErrInvalid, i, err)
		}
	}
	return &c, c.Config.Check()
}

// Check tells whether a container can be configured from c. Import uses it for
// what the user changed.
func (c *RunConfig) Check() error {
	for what, list := range map[string][]string{"Entrypoint": c.Entrypoint, "Cmd": c.Cmd, "Env": c.Env, "Shell": c.Shell,
		"User": {c.User}, "WorkingDir": {c.WorkingDir}, "StopSignal": {c.StopSignal}} {
		for _, s := range list {
			if strings.ContainsRune(s, 0) {
				return fmt.Errorf("%w: config: %s holds a zero byte", ErrInvalid, what)
			}
		}
	}
	for _, e := range c.Env {
		name, _, ok := strings.Cut(e, "=")
		if !ok || !envName(name) {
			return fmt.Errorf("%w: config: Env %q is not NAME=value", ErrInvalid, clip(e))
		}
	}
	if c.WorkingDir != "" && !strings.HasPrefix(c.WorkingDir, "/") {
		return fmt.Errorf("%w: config: WorkingDir %q is not absolute", ErrInvalid, clip(c.WorkingDir))
	}
	for v := range c.Volumes {
		if !strings.HasPrefix(v, "/") || strings.ContainsRune(v, 0) {
			return fmt.Errorf("%w: config: volume %q is not an absolute path", ErrInvalid, clip(v))
		}
	}
	for p := range c.ExposedPorts {
		if !exposedPort().MatchString(p) {
			return fmt.Errorf("%w: config: exposed port %q is not PORT or PORT/PROTOCOL", ErrInvalid, clip(p))
		}
	}
	return nil
}

var exposedPort = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9]{1,5}(-[0-9]{1,5})?(/(tcp|udp|sctp))?$`) })

// CheckLayers tells whether manifest and config speak of the same layers.
func CheckLayers(m *Manifest, c *Config) error {
	if len(m.Layers) != len(c.RootFS.DiffIDs) {
		return fmt.Errorf("%w: the manifest has %d layers, the config %d", ErrInvalid, len(m.Layers), len(c.RootFS.DiffIDs))
	}
	return nil
}
