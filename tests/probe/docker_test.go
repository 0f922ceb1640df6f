package probe

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/probing"
	"github.com/seed-f5e3b97b/bulkhead/internal/probe"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/seed-f5e3b97b/bulkhead/tests/abilities"
)

// docker is a daemon of the test's own.
type docker struct {
	w       *world
	socket  string
	version string // of Docker, its runtime, the kernel, and the generation of cgroups
}

// startDocker starts one below the test's directory, with a network namespace and a
// cgroup of its own, and gives it the image "box".
func startDocker(w *world, arguments ...string) *docker {
	w.Helper()
	for _, program := range []string{"dockerd", "docker", "runc"} {
		if _, err := exec.LookPath(program); err != nil {
			w.Skip(err)
		}
	}
	d := &docker{w: w, socket: "unix://" + filepath.Join(w.dir, "d.sock")}
	group := fmt.Sprintf("/bulkhead-test-docker-%d", os.Getpid())
	w.Cleanup(func() {
		left, _ := filepath.Glob("/sys/fs/cgroup/*" + group) // the pattern is well-formed
		for _, dir := range append(left, "/sys/fs/cgroup"+group) {
			if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
				w.Error(err)
			}
		}
	})
	daemon := exec.Command("dockerd", append([]string{
		"--host", d.socket, "--data-root", filepath.Join(w.dir, "d"), "--exec-root", filepath.Join(w.dir, "x"), "--pidfile", filepath.Join(w.dir, "d.pid"), "--cgroup-parent", group,
	}, arguments...)...)
	var log bytes.Buffer
	daemon.Stdout, daemon.Stderr = &log, &log
	daemon.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Setpgid: true}
	if err := daemon.Start(); err != nil {
		w.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	w.Cleanup(func() {
		_ = daemon.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = daemon.Process.Kill()
			<-ended
			w.Error("dockerd did not end")
		}
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if _, _, code := d.run("info"); code == 0 {
			break
		}
		select {
		case err := <-ended:
			ended <- err
			w.Skipf("dockerd does not run here: %v: %s", err, log.String()[max(0, log.Len()-300):])
		default:
		}
		if time.Now().After(end) {
			w.Fatalf("dockerd does not answer: %s", log.String())
		}
	}
	if out, errs, code := d.run("import", filepath.Join(w.dir, "image.tar"), "box"); code != 0 {
		w.Fatalf("docker import: %s%s", out, errs)
	}
	var v struct {
		Server struct {
			Version    string
			Components []struct{ Name, Version string }
		}
	}
	out, _, _ := d.run("version", "--format", "{{json .}}")
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		w.Fatalf("%v: %s", err, out)
	}
	d.version = "Docker " + v.Server.Version
	for _, c := range v.Server.Components {
		if c.Name == "runc" {
			d.version += ", runc " + c.Version
		}
	}
	h, err := probe.LocalHost()
	if err != nil {
		w.Fatal(err)
	}
	cgroups, _, _ := d.run("info", "--format", "cgroup v{{.CgroupVersion}}")
	d.version += ", " + strings.TrimSpace(cgroups) + ", Linux " + h.Release
	return d
}

func (d *docker) run(args ...string) (stdout, stderr string, code int) {
	d.w.Helper()
	return d.w.run(exec.Command("docker", append([]string{"--host", d.socket}, args...)...))
}

// probe has the prober look from a container, and judge by what the host tells.
func (d *docker) probe(label string, flags ...string) *report.Report {
	d.w.Helper()
	canaries, err := probing.PutUp(d.w.TempDir())
	if err != nil {
		d.w.Fatal(err)
	}
	defer func() {
		if err := canaries.TakeDown(); err != nil {
			d.w.Error(err)
		}
	}()
	h, err := probe.LocalHost()
	if err != nil {
		d.w.Fatal(err)
	}
	c := probe.NewContext(h, nil)
	c.Targets = canaries.Targets
	b, err := c.Encode()
	if err != nil {
		d.w.Fatal(err)
	}
	file := filepath.Join(d.w.dir, "docker.json")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		d.w.Fatal(err)
	}
	args := append([]string{"run", "--rm", "-v", filepath.Join(bin, "bulkhead-probe") + ":/probe:ro", "-v", file + ":/context:ro"}, flags...)
	doc := d.w.decode(d.run(append(args, "box", "/probe", "-json", "-context", "/context")...))
	doc.Reports[0].Subject.Label = label
	return &doc.Reports[0]
}

// lessCapabilities is an OCI runtime that takes from a container the capabilities
// that this machine has none of, which runc refuses to give, and else is runc.
const lessCapabilities = `#!/bin/sh
set -e
previous=
for word; do
	[ "$previous" != --bundle ] || bundle=$word
	previous=$word
done
if [ -n "$bundle" ]; then
	jq '.process.capabilities |= map_values(map(select(IN($lost | split(" ")[]) | not)))' --arg lost "%s" "$bundle/config.json" > "$bundle/config.json.new"
	mv "$bundle/config.json.new" "$bundle/config.json"
fi
exec runc "$@"
`

// lostCapabilities are those that this process, and so the daemon, cannot give.
func lostCapabilities(t *testing.T) (lost []string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	var bounding uint64
	_, rest, _ := strings.Cut(string(b), "CapBnd:")
	if _, err := fmt.Sscanf(rest, "%x", &bounding); err != nil {
		t.Fatal(err)
	}
	for n, name := range probe.Capabilities() {
		if bounding&(1<<n) == 0 {
			lost = append(lost, "CAP_"+name)
		}
	}
	return lost
}

// TestDocker looks from Docker's default container and from a privileged one. On the
// machine on which they were recorded the verdicts are the same again; on others
// what makes the difference is.
func TestDocker(t *testing.T) {
	w := newWorld(t)
	var arguments, runtime []string
	lost := lostCapabilities(t)
	if len(lost) > 0 {
		if _, err := exec.LookPath("jq"); err != nil {
			t.Skip(err)
		}
		file := filepath.Join(w.dir, "less")
		if err := os.WriteFile(file, fmt.Appendf(nil, lessCapabilities, strings.Join(lost, " ")), 0o755); err != nil {
			t.Fatal(err)
		}
		arguments, runtime = []string{"--add-runtime", "less=" + file}, []string{"--runtime", "less"}
	}
	d := startDocker(w, arguments...)
	machine := d.version
	if len(lost) > 0 {
		machine += ", privileged without " + strings.Join(lost, " ")
	}
	if !abilities.TakesI386() {
		machine += ", without calls of i386"
	}
	usual := d.probe("docker")
	privileged := d.probe("docker-privileged", append(runtime, "--privileged")...)
	for _, r := range []*report.Report{usual, privileged} {
		if !*update && !recordedOn(t, r.Subject.Label, machine) {
			t.Logf("the verdicts were recorded on another machine than %s", machine)
			continue
		}
		compareGolden(t, r, machine)
	}
	for _, tt := range []struct {
		id                string
		usual, privileged report.Verdict
	}{
		{"namespaces.pid", report.Held, report.Held},
		{"namespaces.user", report.Leaked, report.Leaked},
		{"capabilities.no-new-privileges", report.Leaked, report.Leaked},
		{"files.usermode-helpers", report.Held, report.Leaked},
		{"syscalls.filter", report.Held, report.Leaked},
		{"syscalls.modules", report.Held, report.Leaked},
		{"escape.modules", report.Held, report.Leaked},
		{"escape.file-handles", report.Held, report.Leaked},
		{"files.host-file", report.Held, report.Held},
	} {
		for r, want := range map[*report.Report]report.Verdict{usual: tt.usual, privileged: tt.privileged} {
			if got := verdictOf(r, tt.id); got != want {
				t.Errorf("%s, %s: got %s, want %s", r.Subject.Label, tt.id, got, want)
			}
		}
	}
}

func verdictOf(r *report.Report, id string) report.Verdict {
	for i := range r.Findings {
		if r.Findings[i].ID == id {
			return r.Findings[i].Verdict
		}
	}
	return ""
}
