package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/idrange"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

func TestParseTime(t *testing.T) {
	zone := time.FixedZone("x", 3600)
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, zone)
	for in, want := range map[string]time.Time{
		"":                            {},
		"10m":                         now.Add(-10 * time.Minute),
		"1h30m":                       now.Add(-90 * time.Minute),
		"2026-01-02T03:04:05Z":        time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		"2026-01-02T03:04:05.5+02:00": time.Date(2026, 1, 2, 1, 4, 5, 5e8, time.UTC),
		"2026-01-02T03:04:05":         time.Date(2026, 1, 2, 3, 4, 5, 0, zone),
		"2026-01-02T03:04:05.5":       time.Date(2026, 1, 2, 3, 4, 5, 5e8, zone),
		"2026-01-02T03:04":            time.Date(2026, 1, 2, 3, 4, 0, 0, zone),
		"2026-01-02T03:04Z":           time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC),
		"2026-01-02T03:04+02:00":      time.Date(2026, 1, 2, 1, 4, 0, 0, time.UTC),
		"2026-01-02T03":               time.Date(2026, 1, 2, 3, 0, 0, 0, zone),
		"2026-01-02T03Z":              time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC),
		"2026-01-02Z":                 time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC),
		"2026-01-02":                  time.Date(2026, 1, 2, 0, 0, 0, 0, zone),
		"1767323045":                  time.Unix(1767323045, 0),
		"1767323045.25":               time.Unix(1767323045, 25e7),
		"0":                           time.Unix(0, 0),
	} {
		if got, err := parseTime("--since", in, now); err != nil || !got.Equal(want) {
			t.Errorf("parseTime(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"yesterday", "-5", "1.2.3", "99999999999999999999", "2026-13-01", "1.x", " ", "1.1234567890", "2026-01-02T", "2026-01-02T25", "2026-01"} {
		if got, err := parseTime("--since", in, now); err == nil {
			t.Errorf("parseTime(%q) = %v", in, got)
		}
	}
}

func TestParseTail(t *testing.T) {
	for in, want := range map[string]int{"all": -1, "-1": -1, "-5": -1, "0": 0, "25": 25, "+3": 3} {
		if got, err := parseTail(in); err != nil || got != want {
			t.Errorf("parseTail(%q) = %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "x", "-x", "1.5"} {
		if _, err := parseTail(in); err == nil {
			t.Errorf("parseTail(%q) accepts it", in)
		}
	}
}

func TestStatus(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, tt := range []struct {
		r    engine.Record
		want string
	}{
		{engine.Record{Status: workload.Created}, "Created"},
		{engine.Record{Status: workload.Running, Started: now.Add(-5 * time.Minute)}, "Up 5 minutes"},
		{engine.Record{Status: workload.Paused, Started: now.Add(-5 * time.Minute)}, "Up 5 minutes (Paused)"},
		{engine.Record{Status: workload.Exited, Finished: now.Add(-3 * time.Second), Exit: &workload.Exit{Code: 3}}, "Exited (3) 3 seconds ago"},
		{engine.Record{Status: workload.Exited, Finished: now.Add(-3 * time.Second), Exit: &workload.Exit{Code: 137, OOMKilled: true}}, "Exited (137, out of memory) 3 seconds ago"},
		{engine.Record{Status: workload.Exited, Finished: now.Add(-3 * time.Second), Exit: &workload.Exit{Error: "supervisor lost"}}, "Exited (supervisor lost) 3 seconds ago"},
	} {
		if got := status(&tt.r, now); got != tt.want {
			t.Errorf("status = %q, want %q", got, tt.want)
		}
	}
}

func TestFilters(t *testing.T) {
	r := &engine.Record{Status: workload.Exited, Exit: &workload.Exit{Code: 3}, Spec: workload.Spec{
		ID: "abc", Name: "web-1", Boundary: "container", Labels: map[string]string{"k": "v", "empty": ""},
		Image:   workload.Image{Reference: "docker.io/library/redis:7", Digest: "sha256:1"},
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Networks: []workload.Attachment{{Network: "back"}}, Exposed: []string{"443/tcp"},
		Mounts: []workload.Mount{{Type: "volume", Source: "data", Target: "/x"}}, Ports: []workload.Port{{HostPort: 8080, Port: 80, Protocol: "tcp"}},
	}}
	for line, want := range map[string]bool{
		"name=web": true, "name=db": false, "name=db name=web": true, "name=^web-1$": true, "name=^/web-1$": true, "name=^web$": false, "name=^/": true, "name=w.b": true, "name=b-[0-9]": true, "name=web status=running": false, "name=web status=exited": true,
		"id=ab": true, "id=^ab": true, "id=^b": false, "id=x": false, "status=dead": false, "status=removing": false, "label=k": true, "label=k=v": true, "label=k=w": false, "label=empty": true, "label=none": false,
		"ancestor=redis:7": true, "ancestor=docker.io/library/redis:7": true, "ancestor=redis": false, "ancestor=sha256:1": true,
		"label=k label=empty": true, "label=k label=none": false, "volume=data": true, "volume=/x": true, "volume=x": false,
		"since=2026-01-02T03:04:04Z": true, "since=2026-01-02T03:04:05Z": false, "before=2026-01-02T03:04:06Z": true, "before=2026-01-02T03:04:05Z": false,
		"publish=8080": true, "publish=8080/udp": false, "publish=8000-9000/tcp": true, "publish=80": false, "expose=80": true, "expose=443": true,
		"expose=1-79": false, "network=back": true, "network=front": false, "health=none": true, "health=healthy": false,
		"STATUS=exited": true, "exited=3": true, "exited=0": false, "boundary=container": true, "boundary=vm": false, "": true,
	} {
		f, err := parseFilters(strings.Fields(line))
		if err != nil || f.match(r) != want {
			t.Errorf("%q: %v, %v", line, !want, err)
		}
	}
	for _, bad := range []string{"", "name", "name=", "color=red", "status=gone", "name=web[", "id=*", "exited=x", "exited=256", "=x", "publish=0", "publish=80/sctp", "publish=9-8", "health=well", "should-start-on-boot=maybe"} {
		if _, err := parseFilters([]string{bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestWorkloadCompletions(t *testing.T) {
	records := []*engine.Record{
		{Status: workload.Running, Spec: workload.Spec{Name: "web", Image: workload.Image{Reference: "docker.io/library/redis:7"}}},
		{Status: workload.Exited, Spec: workload.Spec{Name: "week"}},
		{Status: workload.Running, Spec: workload.Spec{Name: "db"}},
		{Status: workload.Running, Spec: workload.Spec{Name: "we-tenant", VM: workload.VM{Machine: true}}},
	}
	got := workloadCompletions(records, running, "we")
	if want := []string{"web\tredis:7"}; !slices.Equal(got, want) {
		t.Errorf("completions %q; want %q", got, want)
	}
	records[3].Spec.VM.Tenant = "we-tenant"
	got = tenantCompletions(records, "we")
	if want := []string{"we-tenant"}; !slices.Equal(got, want) {
		t.Errorf("completions of tenants %q; want %q", got, want)
	}
}

func TestExitCodes(t *testing.T) {
	run := &cobra.Command{Annotations: map[string]string{runsProgram: "1"}}
	ps := &cobra.Command{}
	for _, tt := range []struct {
		cmd  *cobra.Command
		err  error
		want int
	}{
		{run, exitStatus(7), 7}, {ps, exitStatus(7), 7},
		{run, errors.New("x"), 125}, {ps, errors.New("x"), 1}, {nil, errors.New("x"), 1},
		{run, fmt.Errorf("a: %w", workload.ErrCommandNotFound), 127}, {run, fmt.Errorf("a: %w", workload.ErrNotExecutable), 126},
		{ps, fmt.Errorf("a: %w", workload.ErrCommandNotFound), 1},
	} {
		if code, _ := explain(tt.err, tt.cmd); code != tt.want {
			t.Errorf("%v: exit code %d, want %d", tt.err, code, tt.want)
		}
	}
	for _, err := range []error{workload.ErrNameTaken, idrange.ErrExhausted, idrange.ErrTaken, syscall.ENOSPC, workload.ErrUnsupported} {
		if fixFor(fmt.Errorf("a: %w", err)) == "" {
			t.Errorf("%v: no fix", err)
		}
	}
}

// TestErrorsNameTheProgramOnce gives every command too few words, too many, and a
// flag that does not exist.
func TestErrorsNameTheProgramOnce(t *testing.T) {
	said := 0
	walk(newApp(boundaries()...).command(), func(c *cobra.Command) {
		path := strings.Fields(c.CommandPath())[1:]
		for _, more := range [][]string{nil, {"a", "b", "c", "d"}, {"--no-such-flag"}} {
			a := newApp(boundaries()...)
			var out, errs strings.Builder
			a.out, a.err = &out, &errs
			cmd, args, err := a.command().Find(append(slices.Clone(path), more...))
			if err == nil {
				if err = cmd.ParseFlags(args); err != nil {
					err = flagError(cmd, err)
				} else if cmd.Args != nil {
					err = cmd.Args(cmd, cmd.Flags().Args())
				}
			}
			if err == nil {
				continue // these words are right
			}
			said++
			advice.Print(a.err, "bulkhead", err, false)
			sentence, _, _ := strings.Cut(errs.String(), "\n")
			if strings.Count(sentence, "bulkhead") != 1 {
				t.Errorf("%q: %s", append(path, more...), sentence)
			}
		}
	})
	if said < 40 {
		t.Errorf("only %d wrong command lines were refused", said)
	}
}

// Another user is told that this version needs root, and nothing is made.
func TestNotRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("becoming another user needs root")
	}
	bin, err := exec.LookPath("bulkhead")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "bh-notroot-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	text, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(dir, "bulkhead")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(own, text, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"run", "test"}, {"ps"}, {"images"}, {"pull", "x"}, {"exec", "a", "b"}} {
		cmd := exec.Command(own, args...)
		cmd.Dir = "/"
		cmd.Env = []string{rootVariable + "=" + filepath.Join(dir, "state")}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "needs root") || !strings.Contains(string(out), "sudo") {
			t.Errorf("%v: %v, %s", args, err, out)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "state")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("state was made: %v", err)
	}
}

// TestBuildsWhatItNeeds has the tree of each command line hold the command of the
// whole tree, and no other of the first level.
func TestBuildsWhatItNeeds(t *testing.T) {
	a := newApp(boundaries()...)
	walk(a.command(), func(c *cobra.Command) {
		path := strings.Fields(c.CommandPath())[1:]
		if len(path) == 0 {
			return
		}
		for _, before := range [][]string{nil, {"--debug"}, {"--root", "kernel", "--debug=false"}, {"--root=ps"}} {
			args := slices.Concat(before, path, []string{"--help"})
			tree := a.command(args...)
			found, _, err := tree.Find(args)
			if err != nil || found.CommandPath() != c.CommandPath() || found.UsageString() != c.UsageString() {
				t.Errorf("%q: %v, %v", args, found.CommandPath(), err)
			}
			if len(tree.Commands()) != 1 {
				t.Errorf("%q: %d commands were built", args, len(tree.Commands()))
			}
		}
	})
	whole := len(a.command().Commands())
	for _, args := range [][]string{{"--help"}, {"help", "run"}, {"rum"}, {"--debug"}, {"--root"}, {"--", "run"}, {"-h", "run"}, {cobra.ShellCompRequestCmd, "ru"}} {
		if n := len(a.command(args...).Commands()); n != whole {
			t.Errorf("%q: %d commands of %d", args, n, whole)
		}
	}
}

func TestPruneQuestion(t *testing.T) {
	want := "Remove every workload that does not run, every network that no workload has, every image that has no tag and every anonymous volume that no workload has?"
	if got := pruneQuestion(false, true); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
