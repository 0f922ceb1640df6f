package cgroup

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/opencontainers/cgroups/fs"
	"github.com/opencontainers/cgroups/fs2"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Options change how New and Load understand a path.
type Options struct {
	// Base is where relative paths start; "" is DefaultBase.
	Base string
	// Systemd says that the path has the form slice:prefix:name.
	Systemd bool
	// Strict turns the notes of a Manager into errors: limits that the kernel
	// accepts though nothing enforces them at present.
	Strict bool
	// Names replaces what errors and notes call a limit, such as MemoryLimit, by
	// the words in which the caller's user asked for it.
	Names map[string]string
	// Layout replaces the one that Detect finds.
	Layout *Layout
}

// Manager is one cgroup path in every hierarchy of the machine. Its methods
// may be called from several goroutines, except that Create and Destroy must
// not overlap with others.
type Manager struct {
	path   string
	lay    *Layout
	v1     []v1Dir
	v2     string // directory in the v2 hierarchy, "" if there is none
	limits []limit
	notes  []string
	names  map[string]string // see Options
	policy *devicePolicy     // nil: no device rules were given
}

// v1Dir is the directory of a Manager in one v1 hierarchy.
type v1Dir struct {
	Hierarchy
	dir string
}

// New checks a path and resources and returns the Manager for them. Nothing is
// made or changed. The error is an *InvalidError, a *MissingError, or wraps
// ErrNoAccess when no cgroup file system is mounted.
func New(path string, r *specs.LinuxResources, o Options) (*Manager, error) {
	m, err := open(path, o)
	if err != nil {
		return nil, err
	}
	m.names = o.Names
	if err := m.want(r, o.Strict); err != nil {
		return nil, err
	}
	return m, nil
}

// Load returns the Manager of a cgroup that some process made before. Only
// those hierarchies count in which its directory exists. If there is none the
// error wraps os.ErrNotExist.
func Load(path string, o Options) (*Manager, error) {
	m, err := open(path, o)
	if err != nil {
		return nil, err
	}
	m.v1 = slices.DeleteFunc(m.v1, func(d v1Dir) bool { return !exists(d.dir, ".") })
	if m.v2 != "" && !exists(m.v2, ".") {
		m.v2 = ""
	}
	if len(m.v1) == 0 && m.v2 == "" {
		return nil, fmt.Errorf("cgroup %s: %w", m.path, os.ErrNotExist)
	}
	return m, nil
}

func open(path string, o Options) (*Manager, error) {
	parse := func() (string, error) { return ParsePath(path, o.Base) }
	if o.Systemd {
		parse = func() (string, error) { return ParseSystemdPath(path) }
	}
	clean, err := parse()
	if err != nil {
		return nil, err
	}
	lay := o.Layout
	if lay == nil {
		if lay, err = Detect(); err != nil {
			return nil, err
		}
	}
	if lay.Mode == ModeNone {
		return nil, fmt.Errorf("%w: no cgroup file system is mounted", ErrNoAccess)
	}
	m := &Manager{path: clean, lay: lay}
	for _, h := range lay.V1 {
		m.v1 = append(m.v1, v1Dir{h, h.Mount + clean})
	}
	if lay.V2 != "" {
		m.v2 = lay.V2 + clean
	}
	return m, nil
}

// want computes what r asks for.
func (m *Manager) want(r *specs.LinuxResources, strict bool) error {
	limits, notes, err := limitsFor(r, m.lay, m.names)
	if err != nil {
		return err
	}
	if strict && len(notes) > 0 {
		return errors.New(notes[0])
	}
	m.limits, m.notes, m.policy = limits, notes, nil
	if r != nil && len(r.Devices) > 0 {
		p, err := newDevicePolicy(r.Devices)
		if err != nil {
			return err
		}
		m.policy = &p
	}
	return nil
}

// Path is the cgroup's path below the root of each hierarchy.
func (m *Manager) Path() string { return m.path }

// Mode is the machine's mode.
func (m *Manager) Mode() Mode { return m.lay.Mode }

// Notes are sentences about limits that are set though nothing enforces them
// fully at present; Options.Strict makes them errors.
func (m *Manager) Notes() []string { return m.notes }

// Paths returns the directories: for each v1 controller or named hierarchy
// ("memory", "name=systemd") and, under "", for v2. That is the form in which
// runc's state.json has them.
func (m *Manager) Paths() map[string]string {
	paths := m.v1Paths()
	for _, d := range m.v1 {
		if len(d.Controllers) == 0 {
			paths[d.Name] = d.dir
		}
	}
	if m.v2 != "" {
		paths[""] = m.v2
	}
	return paths
}

func (m *Manager) v1Paths() map[string]string {
	paths := make(map[string]string)
	for _, d := range m.v1 {
		for _, c := range d.Controllers {
			paths[c] = d.dir
		}
	}
	return paths
}

// dirOn returns the v1 directory of a controller, "" if there is none.
func (m *Manager) dirOn(controller string) string {
	for _, d := range m.v1 {
		if slices.Contains(d.Controllers, controller) {
			return d.dir
		}
	}
	return ""
}

// dirs returns all directories.
func (m *Manager) dirs() []string {
	var list []string
	for _, d := range m.v1 {
		list = append(list, d.dir)
	}
	if m.v2 != "" {
		list = append(list, m.v2)
	}
	return list
}

// Exists reports whether a directory of the cgroup exists in any hierarchy.
func (m *Manager) Exists() bool {
	return slices.ContainsFunc(m.dirs(), func(d string) bool { return exists(d, ".") })
}

// v1Library and v2Library return the library's managers for the directories
// of this one, with nothing of their own to apply.
func (m *Manager) v1Library() (*fs.Manager, error) {
	return fs.NewManager(&cgroups.Cgroup{Path: m.path, Resources: &cgroups.Resources{}}, m.v1Paths())
}

func (m *Manager) v2Library() (*fs2.Manager, error) {
	return fs2.NewManager(&cgroups.Cgroup{Path: m.path, Resources: &cgroups.Resources{}}, m.v2)
}
