// Package apparmor finds out whether the host has AppArmor, resolves the
// profile of a container, and loads the default one.
//
// A profile is a text that apparmor_parser(8) compiles and hands to the kernel;
// there it has a name. The first process of a container asks for the profile by
// name, and gets it with its next execve(2). The kernel refuses a name that is
// not loaded, but only at that moment and with a bare ENOENT; so the name is
// looked up here before anything is made.
package apparmor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Unconfined is what a user writes to run a container without a profile.
const Unconfined = "unconfined"

// ExecFile is where the name of the profile for the next execve(2) is written,
// as ExecLabel has it. It must be the /proc of the host, opened before the
// container's own is in place (CVE-2025-52881). Linux 5.8.
const ExecFile = "/proc/thread-self/attr/apparmor/exec"

// ExecLabel returns the exact bytes to write to ExecFile in one write.
func ExecLabel(profile string) []byte { return []byte("exec " + profile) }

// A Support says whether the kernel enforces AppArmor profiles.
type Support int

const (
	// CouldNotTell comes with an error. It must not be cached, nor taken for
	// NotSupported: the container would silently lose its profile.
	CouldNotTell Support = iota
	NotSupported
	Supported
)

func (s Support) String() string {
	switch s {
	case NotSupported:
		return "not supported"
	case Supported:
		return "supported"
	}
	return "could not tell"
}

// Where the kernel shows its state.
const (
	enabledFile  = "/sys/module/apparmor/parameters/enabled"
	policyDir    = "/sys/kernel/security/apparmor"
	profilesFile = policyDir + "/profiles"
)

// A Host is the machine whose AppArmor is used. The zero value is this one.
type Host struct {
	root   string // of the files, for tests
	parser string // the program, for tests
}

func (h Host) path(name string) string { return filepath.Join("/", h.root, name) }

// Supported tells whether AppArmor is enabled and its state can be read. The
// error explains an answer of CouldNotTell.
func (h Host) Supported() (Support, error) {
	text, err := readSmall(h.path(enabledFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// The kernel is built without it, or /sys is missing altogether.
		if _, err := os.Stat(h.path("/sys/module")); err != nil {
			return CouldNotTell, fmt.Errorf("apparmor: %w", err)
		}
		return NotSupported, nil
	case err != nil:
		return CouldNotTell, fmt.Errorf("apparmor: %w", err)
	}
	switch strings.TrimSpace(text) {
	case "N":
		return NotSupported, nil
	case "Y":
	default:
		return CouldNotTell, fmt.Errorf("apparmor: %s holds %.20q, not Y or N", enabledFile, text)
	}
	if _, err := os.Stat(h.path(policyDir)); err != nil {
		return CouldNotTell, fmt.Errorf("apparmor: enabled, but its state is not visible (is securityfs mounted?): %w", err)
	}
	return Supported, nil
}

// A Mode is how the kernel applies a profile: "enforce", "complain" (violations
// are logged and permitted), "kill", "unconfined", "prompt".
type Mode string

// Enforces tells whether the profile denies anything.
func (m Mode) Enforces() bool { return m == "enforce" || m == "kill" }

// NotLoadedError says that the kernel has no profile of this name.
type NotLoadedError struct{ Profile string }

func (e *NotLoadedError) Error() string {
	return fmt.Sprintf("apparmor: profile %q is not loaded; load it with apparmor_parser", e.Profile)
}

// maxProfiles bounds the list of loaded profiles, in bytes.
const maxProfiles = 16 << 20

// Loaded returns the mode of a loaded profile, or a NotLoadedError. Reading the
// list needs privilege; without it the error wraps fs.ErrPermission.
func (h Host) Loaded(profile string) (Mode, error) {
	f, err := os.Open(h.path(profilesFile))
	if err != nil {
		return "", fmt.Errorf("apparmor: list the loaded profiles: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxProfiles))
	for lines.Scan() {
		// "NAME (MODE)"; a name may itself hold spaces and parentheses.
		line := strings.TrimSuffix(lines.Text(), ")")
		if i := strings.LastIndex(line, " ("); i >= 0 && line[:i] == profile {
			return Mode(line[i+2:]), nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("apparmor: list the loaded profiles: %w", err)
	}
	return "", &NotLoadedError{profile}
}

// ExecProfile checks the profile that a runtime specification names, and returns
// what is to be written for it, as ExecLabel has it; "" is nothing. "unconfined" is
// no profile that could be loaded, but what the kernel calls having none: Docker
// names it on hosts that have AppArmor, and runc writes it, which the kernel refuses
// to whom its own profile does not let go. Without AppArmor all is unconfined.
func (h Host) ExecProfile(asked string) (string, error) {
	switch asked {
	case "":
		return "", nil
	case Unconfined:
		support, err := h.Supported()
		if support == NotSupported {
			return "", nil
		}
		return asked, err
	}
	_, err := h.Loaded(asked)
	return asked, err
}

// A Profile is the outcome of Resolve.
type Profile struct {
	Name string // "" for none
	Mode Mode   // how the kernel applies it
}

// Resolve turns what was asked for into a profile that is loaded:
//
//   - "" is the default profile where the host has AppArmor, loaded if need be,
//     and none where it certainly has not;
//   - "unconfined" is none;
//   - any other name must be loaded. If it is loaded in a mode that does not
//     enforce, the caller shows that as a weakening.
//
// It fails with workload.ErrUnsupported if a name was asked for and the kernel
// has no AppArmor, and if it cannot tell.
func (h Host) Resolve(ctx context.Context, asked string) (Profile, error) {
	if asked == Unconfined {
		return Profile{}, nil
	}
	if err := checkName(asked); err != nil {
		return Profile{}, err
	}
	support, err := h.Supported()
	switch {
	case support == CouldNotTell:
		return Profile{}, err
	case support == NotSupported && asked == "":
		return Profile{}, nil
	case support == NotSupported:
		return Profile{}, fmt.Errorf("apparmor profile %q: the kernel has no AppArmor: %w", asked, workload.ErrUnsupported)
	case asked == "":
		if err := h.EnsureDefault(ctx); err != nil {
			return Profile{}, err
		}
		return Profile{Name: DefaultName, Mode: "enforce"}, nil
	}
	mode, err := h.Loaded(asked)
	if err != nil {
		return Profile{}, err
	}
	return Profile{Name: asked, Mode: mode}, nil
}

// checkName refuses what could not be a profile's name, or would be something
// else in the kernel's files: those separate by line breaks and spaces, and a
// leading "&" or "//&" stacks profiles.
func checkName(name string) error {
	const maxName = 1024 // far below the page that the kernel takes
	if len(name) > maxName {
		return fmt.Errorf("apparmor: profile name of %d bytes is above %d", len(name), maxName)
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) || strings.TrimSpace(name) != name ||
		strings.Contains(name, "&") {
		return fmt.Errorf("apparmor: %q is not a profile name", name)
	}
	return nil
}

// readSmall reads a file of the kernel that holds a word.
func readSmall(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	return string(text), err
}
