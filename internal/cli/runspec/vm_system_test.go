package runspec

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestInit settles the first process of a whole system.
func TestInit(t *testing.T) {
	for _, c := range []struct {
		name       string
		entrypoint []string // of the command line, nil for none
		args       []string
		image      []string // entrypoint and command
		want       string
		bad        string
	}{
		{name: "an image for containers", image: []string{"bash"}, want: "/sbin/init"},
		{name: "an image without a command", want: "/sbin/init"},
		{name: "an image with an init", image: []string{"/lib/systemd/systemd", "--unit=x"}, want: "/lib/systemd/systemd --unit=x"},
		{name: "an init given", args: []string{"/bin/busybox", "init"}, image: []string{"/sbin/init"}, want: "/bin/busybox init"},
		{name: "an entrypoint given", entrypoint: []string{"/bin/openrc-init"}, args: []string{"x"}, want: "/bin/openrc-init x"},
		{name: "a name", args: []string{"init"}, bad: "not an absolute path"},
		{name: "a name in the image", image: []string{"init"}, bad: "not an absolute path"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &Request{args: c.args, entrypoint: c.entrypoint, entrypointSet: c.entrypoint != nil}
			s := workload.Spec{VM: workload.VM{System: true}, Process: workload.Process{Args: c.image}}
			err := r.fillInit(&s)
			if c.bad != "" {
				if err == nil || !strings.Contains(err.Error(), c.bad) {
					t.Errorf("fillInit = %v, want %q", err, c.bad)
				}
				return
			}
			if want := strings.Fields(c.want); err != nil || !slices.Equal(s.Process.Args, want) {
				t.Errorf("fillInit = %q, %v; want %q", s.Process.Args, err, want)
			}
		})
	}
}

// TestSystemStopTimeout: a system has longer to stop, unless somebody says how long, be it
// what others have anyway.
func TestSystemStopTimeout(t *testing.T) {
	host := testHost()
	host.Boundaries = append(host.Boundaries, "vm")
	for line, want := range map[string]time.Duration{
		"": 90 * time.Second, "--stop-timeout 10": 10 * time.Second, "--stop-timeout 30": 30 * time.Second,
	} {
		var o Options
		if err := testFlags(&o).Parse(strings.Fields("--boundary vm --systemd " + line)); err != nil {
			t.Fatal(err)
		}
		r, err := o.Check(host, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.spec.StopTimeout != want {
			t.Errorf("%q: got %v, want %v", line, r.spec.StopTimeout, want)
		}
	}
}
