package auditing

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/audit"
)

const testdata = "../../audit/testdata"

// answers stands for a program: what it prints for its arguments.
type answers map[string]string

func (a answers) run(_ context.Context, program string, args ...string) ([]byte, error) {
	line := strings.Join(append([]string{program}, args...), " ")
	text, ok := a[line]
	if !ok {
		return nil, fmt.Errorf("no answer to %q", line)
	}
	if text == "" {
		return nil, errors.New("no such container")
	}
	return []byte(text), nil
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(testdata, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestContainers(t *testing.T) {
	docker := answers{
		"docker ps --all --quiet --no-trunc":             "aa\nbb\n",
		"docker info --format {{json .}}":                read(t, "docker-28.info.json"),
		"docker inspect --type container -- aa":          read(t, "docker-default/inspect.json"),
		"docker inspect --type container -- bb":          read(t, "docker-worst/inspect.json"),
		"docker inspect --type container -- gone":        "",
		"docker inspect --type container -- broken":      `[{"HostConfig": {"Privileged": 1}}]`,
		"docker inspect --type container -- --format=x":  "",
		"podman ps --all --quiet --no-trunc":             "\n",
		"podman inspect --type container -- --format={}": "",
	}
	found, err := Tool{audit.Docker, docker.run}.Containers(t.Context())
	if err != nil || len(found) != 2 {
		t.Fatalf("%d containers, %v", len(found), err)
	}
	if found[0].Target != "docker:default" || found[1].Target != "docker:worst" || !found[0].Seccomp.Known {
		t.Errorf("got %s and %s, seccomp known: %v", found[0].Target, found[1].Target, found[0].Seccomp.Known)
	}
	for _, name := range []string{"gone", "--format=x"} {
		if _, err := (Tool{audit.Docker, docker.run}).Containers(t.Context(), name); err == nil || err.Error() != "no such container" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := (Tool{audit.Docker, docker.run}).Containers(t.Context(), "broken"); !errors.Is(err, audit.ErrMalformed) || !strings.Contains(err.Error(), "HostConfig.Privileged") {
		t.Errorf("broken: %v", err)
	}
	if found, err := (Tool{audit.Podman, docker.run}).Containers(t.Context()); len(found) != 0 || err != nil {
		t.Errorf("none: %v, %v", found, err)
	}
}

// TestContainersGone: who is gone between two answers of the engine is left out; who
// is there and cannot be looked at is told of, and so is what an engine does not tell.
func TestContainersGone(t *testing.T) {
	for _, tt := range []struct {
		name, bb string // what inspect says of the second of three
		again    string // what there is then
		want     string
	}{
		{"gone", "", "aa cc", ""},
		{"refused", "", "cc bb aa", "1 could not be looked at, the first of them bb: no such container"},
		{"not understood", `[{"HostConfig": {"Privileged": 1}}]`, "aa bb cc", "HostConfig.Privileged is a number"},
		{"not understood, and gone", `[{"HostConfig": {"Privileged": 1}}]`, "aa cc", ""},
		{"silent", "", "", "1 could not be looked at, and whether they are gone is not known"},
	} {
		docker := answers{
			"docker info --format {{json .}}":       read(t, "docker-28.info.json"),
			"docker inspect --type container -- aa": read(t, "docker-default/inspect.json"),
			"docker inspect --type container -- bb": tt.bb,
			"docker inspect --type container -- cc": read(t, "docker-worst/inspect.json"),
		}
		listed := 0
		run := func(ctx context.Context, program string, args ...string) ([]byte, error) {
			if args[0] != "ps" {
				return docker.run(ctx, program, args...)
			}
			if listed++; listed == 1 {
				return []byte("aa\nbb\ncc\n"), nil
			}
			return answers{"ps": tt.again}.run(ctx, "ps")
		}
		found, err := Tool{audit.Docker, run}.Containers(t.Context())
		if len(found) != 2 || found[1].Target != "docker:worst" {
			t.Errorf("%s: found %d containers", tt.name, len(found))
		}
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestPodmanProfile: the profile that an engine names is read.
func TestPodmanProfile(t *testing.T) {
	profile := filepath.Join(t.TempDir(), "seccomp.json")
	if err := os.WriteFile(profile, []byte(`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	podman := answers{
		"podman info --format {{json .}}":      strings.Replace(read(t, "podman.info.json"), "/usr/share/containers/seccomp.json", profile, 1),
		"podman inspect --type container -- a": read(t, "podman-default/inspect.json"),
	}
	found, err := Tool{audit.Podman, podman.run}.Containers(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if f := found[0].Seccomp.Value.Families; !slices.Equal(f.Value, []string{"AF_ALG", "AF_VSOCK"}) {
		t.Errorf("families %v, %s", f.Value, f.Why)
	}
}

func TestFile(t *testing.T) {
	entries, err := filepath.Glob(filepath.Join(testdata, "*", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range entries {
		dir := filepath.Base(filepath.Dir(name))
		want, _, _ := strings.Cut(dir, "-")
		if filepath.Base(name) == "config.json" {
			want = string(audit.OCI)
		}
		found, err := File(name, "", "")
		if err != nil || len(found) != 1 || string(found[0].Kind) != want {
			t.Errorf("%s: %d configurations, %v, want kind %s", dir, len(found), err, want)
		} else if found[0].Target != name {
			t.Errorf("%s is called %q", name, found[0].Target)
		}
	}
	if len(entries) < 20 {
		t.Errorf("%d files only", len(entries))
	}
	two := filepath.Join(t.TempDir(), "two.json")
	text := "[" + strings.Trim(strings.TrimSpace(read(t, "docker-default/inspect.json")), "[]") + "," + strings.Trim(strings.TrimSpace(read(t, "docker-worst/inspect.json")), "[]") + "]"
	if err := os.WriteFile(two, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := File(two, "", filepath.Join(testdata, "docker-28.info.json"))
	if err != nil || len(found) != 2 || found[1].Target != two || found[1].Label != two+": worst" || !found[0].Seccomp.Known {
		t.Errorf("two: %v, %v", found, err)
	}
	for _, tt := range []struct {
		file, kind, info string
		want             string
	}{
		{two, "podman", "", ""}, // it is near enough
		{two, "oci", "", "the whole is a list"},
		{two, "bulkhead", "", "Spec is null"},
		{filepath.Join(testdata, "docker-28.info.json"), "", "", "neither what `bulkhead inspect`"},
		{two, "", filepath.Join(testdata, "expected.txt"), "line 1"},
		{filepath.Join(testdata, "expected.txt"), "", "", "line 1, column 1"},
		{testdata, "", "", "is a directory"},
		{"nothing.json", "", "", "no such file"},
	} {
		_, err := File(tt.file, audit.Kind(tt.kind), tt.info)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s as %q: got %v, want %q", tt.file, tt.kind, err, tt.want)
		}
	}
}

func TestRun(t *testing.T) {
	if _, err := Run(t.Context(), "no-such-program-anywhere"); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("a missing program: %v", err)
	}
	if out, err := Run(t.Context(), "sh", "-c", "echo out; echo err >&2"); string(out) != "out\n" || err != nil {
		t.Errorf("got %q, %v", out, err)
	}
	if _, err := Run(t.Context(), "sh", "-c", "echo 'first line' >&2; echo second >&2; exit 3"); err == nil || err.Error() != "first line" {
		t.Errorf("a program that fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, "sleep", "1000"); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	out, err := Run(t.Context(), "head", "-c", fmt.Sprint(2*audit.MaxInput), "/dev/zero")
	if err != nil || len(out) != audit.MaxInput+1 {
		t.Errorf("a flood: %d bytes, %v", len(out), err)
	}
}

func TestProducts(t *testing.T) {
	said := answers{
		"runc --version":               "runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1\nspec: 1.0.2-dev\n",
		"crun --version":               "",
		"containerd --version":         "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3\n",
		"dockerd --version":            "Docker version 28.5.2, build 5d6db84\n",
		"podman --version":             "podman version 4.3.1\n",
		"qemu-system-x86_64 --version": "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b2)\nCopyright",
	}
	run := func(ctx context.Context, program string, args ...string) ([]byte, error) {
		if program == "runsc" {
			return nil, ErrNotInstalled
		}
		return said.run(ctx, program, args...)
	}
	got := map[string]string{}
	for _, p := range Products(t.Context(), run) {
		got[p.Name] = p.Version + p.Failed
	}
	for name, want := range map[string]string{
		"runc": "1.1.5+ds1", "containerd": "1.6.20~ds1", "docker": "28.5.2", "podman": "4.3.1",
		"crun": "it does not tell its version: no such container", "runsc": "",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
}

// TestMonitor looks at a process that is called like QEMU and confined by nobody.
func TestMonitor(t *testing.T) {
	if m, _ := Monitor(os.Getpid()); m.Known || m.Why == "" {
		t.Errorf("without a machine: %+v", m)
	}
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "qemu-system-test")
	if err := os.WriteFile(program, b, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m, uid := Monitor(os.Getpid())
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if !m.Known || int(uid) != os.Geteuid() || m.Value.Root != (os.Geteuid() == 0) || m.Value.Filtered || m.Value.Jailed {
		t.Errorf("got %+v of user %d", m, uid)
	}
}
