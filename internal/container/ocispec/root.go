package ocispec

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Validate checks s against the specification and against what this runtime
// can do. A nil error means that everything s asks for will be in force or the
// kernel will say why not.
func Validate(s *specs.Spec) error {
	checks := []func(*specs.Spec) error{
		checkVersion, checkRoot, checkNames, checkMounts, checkHooks, checkLinux,
	}
	for _, check := range checks {
		if err := check(s); err != nil {
			return err
		}
	}
	if s.Process != nil {
		if err := ValidateProcess(s.Process); err != nil {
			return err
		}
		if err := checkUserMapped(s); err != nil {
			return err
		}
	}
	for key := range s.Annotations {
		if key == "" {
			return errors.New("annotations: a key is empty")
		}
	}
	return refuse(s)
}

// checkVersion accepts versions that this runtime is compatible with: semantic
// versioning 2.0.0, major version 1 (config.md, ociVersion).
func checkVersion(s *specs.Spec) error {
	core, _, _ := strings.Cut(s.Version, "+")
	core, _, _ = strings.Cut(core, "-")
	parts := strings.Split(core, ".")
	bad := len(parts) != 3
	for _, p := range parts {
		_, err := strconv.ParseUint(p, 10, 31)
		bad = bad || err != nil
	}
	switch {
	case s.Version == "":
		return errors.New("ociVersion: missing")
	case bad:
		return fmt.Errorf("ociVersion: %q is not a semantic version", s.Version)
	case parts[0] != "1":
		return fmt.Errorf("ociVersion: %s is not supported, only 1.x", s.Version)
	}
	return nil
}

func checkRoot(s *specs.Spec) error {
	if s.Root == nil || s.Root.Path == "" {
		return errors.New("root.path: missing")
	}
	return nil
}

// checkNames checks hostname and domainname, which must not reach the host's
// UTS namespace. The limits are those of uts(7): __NEW_UTS_LEN.
func checkNames(s *specs.Spec) error {
	for _, n := range []struct{ property, value string }{
		{"hostname", s.Hostname}, {"domainname", s.Domainname},
	} {
		if n.value == "" {
			continue
		}
		if len(n.value) > 64 {
			return fmt.Errorf("%s: longer than 64 bytes", n.property)
		}
		if !hasNamespace(s, specs.UTSNamespace) {
			return fmt.Errorf("%s: needs a uts namespace of its own", n.property)
		}
	}
	return nil
}

func checkMounts(s *specs.Spec) error {
	for i, m := range s.Mounts {
		at := fmt.Sprintf("mounts[%d]", i)
		if m.Destination == "" {
			return fmt.Errorf("%s.destination: missing", at)
		}
		if len(m.UIDMappings) > 0 != (len(m.GIDMappings) > 0) {
			return fmt.Errorf("%s: uidMappings and gidMappings must be given together", at)
		}
		if err := checkMappings(at+".uidMappings", m.UIDMappings); err != nil {
			return err
		}
		if err := checkMappings(at+".gidMappings", m.GIDMappings); err != nil {
			return err
		}
		if len(m.UIDMappings) > 0 && !isBind(m) {
			return fmt.Errorf("%s: uidMappings are for bind mounts", at)
		}
	}
	return nil
}

func isBind(m specs.Mount) bool {
	if m.Type == "bind" {
		return true
	}
	for _, o := range m.Options {
		if o == "bind" || o == "rbind" {
			return true
		}
	}
	return false
}

func checkHooks(s *specs.Spec) error {
	if s.Hooks == nil {
		return nil
	}
	for _, l := range []struct {
		name string
		list []specs.Hook
	}{
		{"prestart", s.Hooks.Prestart}, //nolint:staticcheck // deprecated, not gone
		{"createRuntime", s.Hooks.CreateRuntime},
		{"createContainer", s.Hooks.CreateContainer},
		{"startContainer", s.Hooks.StartContainer},
		{"poststart", s.Hooks.Poststart},
		{"poststop", s.Hooks.Poststop},
	} {
		for i, h := range l.list {
			at := fmt.Sprintf("hooks.%s[%d]", l.name, i)
			if !path.IsAbs(h.Path) {
				return fmt.Errorf("%s.path: %q is not an absolute path", at, h.Path)
			}
			if h.Timeout != nil && *h.Timeout <= 0 {
				return fmt.Errorf("%s.timeout: must be more than 0 seconds", at)
			}
		}
	}
	return nil
}

// namespace returns the entry of type t, nil if the container shares that
// namespace with the runtime.
func namespace(s *specs.Spec, t specs.LinuxNamespaceType) *specs.LinuxNamespace {
	if s.Linux == nil {
		return nil
	}
	for i := range s.Linux.Namespaces {
		if s.Linux.Namespaces[i].Type == t {
			return &s.Linux.Namespaces[i]
		}
	}
	return nil
}

func hasNamespace(s *specs.Spec, t specs.LinuxNamespaceType) bool { return namespace(s, t) != nil }
