package apparmor

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// fake makes a Host of files: parameters/enabled, and the list of loaded
// profiles if it is not nil.
func fake(t *testing.T, enabled string, profiles *string) Host {
	t.Helper()
	h := Host{root: t.TempDir(), parser: "/nonexistent/apparmor_parser"}
	write(t, h.path("/sys/module/ext4/x"), "")
	if enabled != "" {
		write(t, h.path(enabledFile), enabled)
	}
	if profiles != nil {
		write(t, h.path(profilesFile), *profiles)
	}
	return h
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// withParser gives the Host a parser: a shell script with the fake's files.
func withParser(t *testing.T, h Host, script string) Host {
	t.Helper()
	h.parser = filepath.Join(t.TempDir(), "apparmor_parser")
	text := fmt.Sprintf("#!/bin/sh\nPROFILES=%s\n%s\n", h.path(profilesFile), script)
	if err := os.WriteFile(h.parser, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return h
}

func list(lines ...string) *string {
	s := strings.Join(lines, "\n") + "\n"
	return &s
}

func TestSupported(t *testing.T) {
	unreadable := fake(t, "Y\n", list())
	unreadable.root = filepath.Join(unreadable.root, "sys/module/ext4/x") // a file where a directory must be
	for _, test := range []struct {
		name    string
		host    Host
		want    Support
		problem string
	}{
		{"enabled", fake(t, "Y\n", list()), Supported, ""},
		{"disabled", fake(t, "N\n", nil), NotSupported, ""},
		{"not built", fake(t, "", nil), NotSupported, ""},
		{"no securityfs", fake(t, "Y\n", nil), CouldNotTell, "is securityfs mounted?"},
		{"garbage", fake(t, "maybe\n", list()), CouldNotTell, `holds "maybe\n"`},
		{"no sysfs", Host{root: t.TempDir()}, CouldNotTell, "/sys/module"},
		{"not a directory", unreadable, CouldNotTell, "not a directory"},
	} {
		got, err := test.host.Supported()
		if got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
		if (got == CouldNotTell) != (err != nil) || err != nil && !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%s: got error %v, want one with %q", test.name, err, test.problem)
		}
	}
}

func TestLoaded(t *testing.T) {
	h := fake(t, "Y\n", list("docker-default (enforce)", "a b (c) (complain)", "x//null-/usr/bin/y (kill)", "plain", "u (unconfined)"))
	for name, want := range map[string]Mode{
		"docker-default": "enforce", "a b (c)": "complain", "x//null-/usr/bin/y": "kill", "u": "unconfined",
	} {
		if got, err := h.Loaded(name); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"docker", "a b", "plain", "", "docker-default (enforce)"} {
		_, err := h.Loaded(name)
		if notLoaded := (*NotLoadedError)(nil); !errors.As(err, &notLoaded) || notLoaded.Profile != name {
			t.Errorf("%q: got %v, want NotLoadedError", name, err)
		}
	}
	if _, err := fake(t, "Y\n", nil).Loaded("x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a list: got %v, want %v", err, fs.ErrNotExist)
	}
	if _, err := fake(t, "Y\n", list(strings.Repeat("x", 1<<20))).Loaded("x"); err == nil {
		t.Error("a line of 1 MiB: got no error")
	}
}

func TestResolve(t *testing.T) {
	loaded := list(DefaultName+" (enforce)", "mine (complain)")
	for _, test := range []struct {
		name, asked string
		host        Host
		want        Profile
		problem     string
	}{
		{"default, loaded", "", fake(t, "Y\n", loaded), Profile{DefaultName, "enforce"}, ""},
		{"default, no AppArmor", "", fake(t, "N\n", nil), Profile{}, ""},
		{"default, cannot tell", "", fake(t, "Y\n", nil), Profile{}, "is securityfs mounted?"},
		{"unconfined, cannot tell", "unconfined", fake(t, "Y\n", nil), Profile{}, ""},
		{"named", "mine", fake(t, "Y\n", loaded), Profile{"mine", "complain"}, ""},
		{"named, not loaded", "other", fake(t, "Y\n", loaded), Profile{}, `profile "other" is not loaded`},
		{"named, no AppArmor", "mine", fake(t, "N\n", nil), Profile{}, "not supported here"},
		{"line break", "a\nchangeprofile b", fake(t, "Y\n", loaded), Profile{}, "is not a profile name"},
		{"NUL", "a\x00", fake(t, "Y\n", loaded), Profile{}, "is not a profile name"},
		{"stacking", "&mine", fake(t, "Y\n", loaded), Profile{}, "is not a profile name"},
		{"space", " mine", fake(t, "Y\n", loaded), Profile{}, "is not a profile name"},
		{"long", strings.Repeat("x", 2000), fake(t, "Y\n", loaded), Profile{}, "2000 bytes"},
	} {
		got, err := test.host.Resolve(t.Context(), test.asked)
		if got != test.want {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
		}
		if (test.problem != "") != (err != nil) || err != nil && !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%s: got error %v, want one with %q", test.name, err, test.problem)
		}
	}
	if _, err := fake(t, "N\n", nil).Resolve(t.Context(), "mine"); !errors.Is(err, workload.ErrUnsupported) {
		t.Errorf("got %v, want it to be %v", err, workload.ErrUnsupported)
	}
}

func TestEnsureDefault(t *testing.T) {
	const loads = `[ "$*" = "--replace --skip-cache" ] && grep -q "^profile ` + DefaultName + ` " && echo "` + DefaultName + ` (enforce)" >>$PROFILES`
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name    string
		ctx     context.Context
		host    Host
		problem string
	}{
		{"loads", t.Context(), withParser(t, fake(t, "Y\n", list("docker-default (enforce)")), loads), ""},
		{"already loaded", t.Context(), withParser(t, fake(t, "Y\n", list(DefaultName+" (enforce)")), "exit 1"), ""},
		{"complain mode", t.Context(), withParser(t, fake(t, "Y\n", list(DefaultName+" (complain)")), loads), "in complain mode"},
		{"parser fails", t.Context(), withParser(t, fake(t, "Y\n", list()), "echo noise; echo no such rule >&2; exit 3"), "exit status 3: no such rule"},
		{"parser does nothing", t.Context(), withParser(t, fake(t, "Y\n", list()), "exit 0"), "is not loaded"},
		{"parser talks a lot", t.Context(), withParser(t, fake(t, "Y\n", list()), "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end; exit 1"), ": end"},
		{"no list", t.Context(), withParser(t, fake(t, "Y\n", nil), loads), "list the loaded profiles"},
		{"cancelled", cancelled, withParser(t, fake(t, "Y\n", list()), loads), "context canceled"},
		{"no parser", t.Context(), fake(t, "Y\n", list()), "no such file"},
	} {
		err := test.host.EnsureDefault(test.ctx)
		if (test.problem != "") != (err != nil) || err != nil && !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%s: got error %v, want one with %q", test.name, err, test.problem)
		}
	}
}

func TestNoParser(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	old := parserPaths
	parserPaths = []string{"/nonexistent/apparmor_parser"}
	t.Cleanup(func() { parserPaths = old })
	h := fake(t, "Y\n", list())
	h.parser = ""
	if err := h.EnsureDefault(t.Context()); !errors.Is(err, ErrNoParser) {
		t.Errorf("got %v, want %v", err, ErrNoParser)
	}
}

func TestExecLabel(t *testing.T) {
	if got := string(ExecLabel("a b")); got != "exec a b" {
		t.Errorf("got %q, want %q", got, "exec a b")
	}
}

// TestDefaultNameFollowsText fails when the text changes and the name does not.
func TestDefaultNameFollowsText(t *testing.T) {
	const name, sum = "bulkhead-default-1", "6a28a16d04d2c946827a83b7a4f2017e2d30dd4cf8ff2ebac42a15acd873a953"
	if got := fmt.Sprintf("%x", sha256.Sum256([]byte(DefaultText()))); got != sum || DefaultName != name {
		t.Errorf("the text of %s has changed to SHA-256 %s: raise the number in DefaultName and in the text, then change this test", DefaultName, got)
	}
	if got := strings.Count(DefaultText(), DefaultName); got != 3 {
		t.Errorf("the text has the name %s %d times, want 3", DefaultName, got)
	}
}

// TestDefaultCompiles compiles the default profile with the real parser, which
// needs no AppArmor in the kernel, with the features of its own default.
func TestDefaultCompiles(t *testing.T) {
	parser, err := Host{}.findParser()
	if err != nil {
		t.Skipf("skipped: %v", err)
	}
	cmd := exec.Command(parser, "--skip-kernel-load", "--skip-cache", "--warn=all", "--names")
	cmd.Stdin = strings.NewReader(DefaultText())
	out, err := cmd.Output()
	if err != nil || strings.TrimSpace(string(out)) != DefaultName {
		t.Errorf("names of the profiles: got %q, %v, want %s", out, err, DefaultName)
	}
	cmd = exec.Command(parser, "--skip-kernel-load", "--skip-cache")
	cmd.Stdin = strings.NewReader(DefaultText())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("compile: %v\n%s", err, out)
	}
}

// TestExecProfile: what a runtime specification names is written if it is loaded,
// and "unconfined" wherever there is something that could confine.
func TestExecProfile(t *testing.T) {
	on, off, unclear := fake(t, "Y\n", list("mine (enforce)")), fake(t, "N\n", nil), fake(t, "maybe\n", nil)
	for _, test := range []struct {
		host    Host
		asked   string
		want    string
		problem string
	}{
		{on, "", "", ""},
		{unclear, "", "", ""},
		{on, "mine", "mine", ""},
		{on, "other", "", "not loaded"},
		{on, "unconfined", "unconfined", ""},
		{off, "unconfined", "", ""},
		{fake(t, "", nil), "unconfined", "", ""},
		{unclear, "unconfined", "", "not Y or N"},
		{off, "mine", "", "list the loaded profiles"},
	} {
		got, err := test.host.ExecProfile(test.asked)
		if err == nil && got != test.want || (err != nil) != (test.problem != "") || err != nil && !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%q: got %q, %v, want %q, %q", test.asked, got, err, test.want, test.problem)
		}
	}
}
