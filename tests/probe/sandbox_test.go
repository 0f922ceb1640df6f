package probe

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// newSandboxWorld has a runsc beside the programs, as make runsc puts it there, and
// one registered that is not what its processes run.
func newSandboxWorld(t *testing.T) *world {
	t.Helper()
	runsc, err := exec.LookPath("runsc")
	if err != nil {
		t.Skip(err)
	}
	if os.Getenv("BULKHEAD_BIN") == "" {
		if err := os.Symlink(runsc, filepath.Join(bin, "runsc")); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
	w := newWorld(t)
	wrapped := filepath.Join(w.dir, "wrapped")
	if err := os.WriteFile(wrapped, []byte("#!/bin/sh\nexec "+runsc+` "$@"`+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.must("runtime", "add", "wrapped", wrapped)
	return w
}

// TestGoldenSandbox: of a sandbox that was asked for nothing, the doors that are
// open are gVisor's own, and one that tells of the host.
func TestGoldenSandbox(t *testing.T) {
	w := newSandboxWorld(t)
	d := w.decode(w.command("probe", "--json", "--boundary", "gvisor", "box"))
	compareGolden(t, &d.Reports[0])
}

// TestSandboxShut finds shut behind gVisor what was asked for, by the host's word
// where it is the host that keeps it shut.
func TestSandboxShut(t *testing.T) { playIn(t, newSandboxWorld(t), sandboxShut) }

// TestSandboxOpen opens each door that exists behind gVisor.
func TestSandboxOpen(t *testing.T) { playIn(t, newSandboxWorld(t), sandboxOpened) }

// TestSandboxLeadsNowhere: what is open behind gVisor counts as inside unless it
// leads to the host.
func TestSandboxLeadsNowhere(t *testing.T) {
	w := newSandboxWorld(t)
	found := w.look(probed("--boundary gvisor --userns host -v /:/host --security-opt seccomp=unconfined --pids-limit -1", ""))
	for id, want := range map[string]report.Consequence{
		"syscalls.bpf": report.SandboxDepth, "files.sysrq": report.SandboxDepth, "devices.kernel": report.SandboxDepth,
		"files.host-file": report.Takeover, "namespaces.uid-map": report.Depth, "limits.processes": report.Exhausts, "leaks.memory-size": report.Depth,
	} {
		if f := found[id]; !f.Verdict.Open() || f.Consequence != want {
			t.Errorf("%s: %s, %s; want it open, and %s", id, f.Verdict, f.Consequence, want)
		}
	}
}

// TestHostileSandbox puts a liar in the prober's place behind gVisor. The host cannot
// compare what it says of its process, but of its limits and its kernel.
func TestHostileSandbox(t *testing.T) {
	w := newSandboxWorld(t)
	liars := liarsBeside(t, w.dir)
	runsc, err := exec.LookPath("runsc")
	if err == nil {
		err = os.Symlink(runsc, filepath.Join(liars, "runsc"))
	}
	if err != nil {
		t.Fatal(err)
	}
	for lie, want := range map[string]string{
		"silence": "ended before it had told anything", "another word": "does not have the word that the prober was given",
		"flood": "wrote more than", "nothing tried": "the prober did not report it", "half": "is no prober's",
	} {
		d := w.decode(w.run(exec.Command(filepath.Join(liars, "bulkhead"), "probe", "--json", "--boundary", "gvisor", "-e", "LIE="+lie, "box")))
		for _, f := range d.Reports[0].Findings {
			if f.Verdict == report.Held || f.Verdict == report.Unknown && strings.HasPrefix(f.ID, "syscalls.") && !strings.Contains(f.Reason, want) {
				t.Errorf("%s: %s: %s, %q", lie, f.ID, f.Verdict, f.Reason)
			}
		}
		if left := w.must("ps", "-aq"); left != "" {
			t.Errorf("%s: a workload is left: %s", lie, left)
		}
	}
	d := w.decode(w.run(exec.Command(filepath.Join(liars, "bulkhead"), "probe", "--json", "--boundary", "gvisor", "--pids-limit", "-1", "-e", "LIE=limit", "box")))
	if got := verdictOf(&d.Reports[0], "limits.processes"); got != report.Leaked {
		t.Errorf("a limit that the workload invents: %s", got)
	}
}

// TestRuntimes: behind another runtime limits are in a cgroup that the workload does
// not see. The host's word counts, and they are reached all the same.
func TestRuntimes(t *testing.T) {
	for _, name := range []string{"runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			program, err := exec.LookPath(name)
			if err != nil {
				t.Skip(err)
			}
			w := newWorld(t)
			w.must("runtime", "add", name, program)
			held := []string{"limits.processes", "limits.processes-reached", "limits.memory", "limits.memory-reached", "limits.processors"}
			playIn(t, w, []scene{
				probed("--runtime "+name+" --memory 64m --cpus 0.5 --pids-limit 64", report.Held, held...),
				probed("--runtime "+name+" --pids-limit -1", report.Leaked, "limits.processes", "limits.processes-reached"),
			})
		})
	}
}

// TestLimitsAreTheHosts: a workload that says it has a limit has none by that.
func TestLimitsAreTheHosts(t *testing.T) {
	w := newWorld(t)
	liars := liarsBeside(t, w.dir)
	for _, tt := range []struct {
		limit string
		want  report.Verdict
		value string
	}{{"-1", report.Leaked, "none"}, {"64", report.Held, "64"}} {
		d := w.decode(w.run(exec.Command(filepath.Join(liars, "bulkhead"), "probe", "--json", "-e", "LIE=limit", "--pids-limit", tt.limit, "box")))
		n := slices.IndexFunc(d.Reports[0].Findings, func(f report.Finding) bool { return f.ID == "limits.processes" })
		f := d.Reports[0].Findings[n]
		said := slices.ContainsFunc(f.Evidence, func(e report.Evidence) bool { return e.Call == "read(pids.max)" && e.Value == "1" })
		if f.Verdict != tt.want || !said || !strings.HasPrefix(f.Evidence[0].Call, "host: ") || f.Evidence[0].Value != tt.value {
			t.Errorf("--pids-limit %s: %s, %+v", tt.limit, f.Verdict, f.Evidence)
		}
	}
}
