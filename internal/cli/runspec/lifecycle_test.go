package runspec

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/pflag"
)

func TestParseRestart(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want workload.Restart
		ok   bool
	}{
		{"", workload.Restart{}, true},
		{"no", workload.Restart{}, true},
		{"always", workload.Restart{Policy: "always"}, true},
		{"unless-stopped", workload.Restart{Policy: "unless-stopped"}, true},
		{"on-failure", workload.Restart{Policy: "on-failure"}, true},
		{"on-failure:3", workload.Restart{Policy: "on-failure", Max: 3}, true},
		{"on-failure:0", workload.Restart{Policy: "on-failure"}, true},
		{"on-failure:", workload.Restart{}, false},
		{"on-failure:-1", workload.Restart{}, false},
		{"on-failure:99999999999", workload.Restart{}, false},
		{"always:3", workload.Restart{}, false},
		{"sometimes", workload.Restart{}, false},
	} {
		got, err := ParseRestart(tt.in)
		if (err == nil) != tt.ok || tt.ok && got != tt.want {
			t.Errorf("%q: got %+v, %v, want %+v", tt.in, got, err, tt.want)
		}
		if tt.ok {
			if again, err := ParseRestart(FormatRestart(got)); err != nil || again != got {
				t.Errorf("%q: written and read: %+v, %v", tt.in, again, err)
			}
		}
	}
}

func TestHealthFlags(t *testing.T) {
	check := workload.Health{Test: []string{"CMD", "check"}, Interval: time.Minute, Retries: 5}
	shell := workload.Health{Test: []string{"CMD-SHELL", "check it"}}
	for _, tt := range []struct {
		name  string
		flags []string
		image workload.Health
		shell []string
		want  workload.Health
		err   string // a part of it
	}{
		{"nothing", nil, workload.Health{}, nil, workload.Health{}, ""},
		{"the image's", nil, check, nil, check, ""},
		{"none of the image's", nil, workload.Health{Test: []string{"NONE"}}, nil, workload.Health{}, ""},
		{"turned off", []string{"--no-healthcheck"}, check, nil, workload.Health{Test: []string{"NONE"}}, ""},
		{"a figure", []string{"--health-retries", "2"}, check, nil, workload.Health{Test: check.Test, Interval: time.Minute, Retries: 2}, ""},
		{"a command", []string{"--health-cmd", "curl x", "--health-timeout", "3s"}, check, nil,
			workload.Health{Test: []string{"CMD-SHELL", "curl x"}, Interval: time.Minute, Timeout: 3 * time.Second, Retries: 5}, ""},
		{"the image's shell", nil, shell, []string{"/bin/bash", "-c"}, workload.Health{Test: []string{"CMD", "/bin/bash", "-c", "check it"}}, ""},
		{"the image's shell for ours", []string{"--health-cmd", "x"}, check, []string{"/bin/bash", "-c"},
			workload.Health{Test: []string{"CMD", "/bin/bash", "-c", "x"}, Interval: time.Minute, Retries: 5}, ""},
		{"figures of nothing", []string{"--health-interval", "3s"}, workload.Health{}, nil, workload.Health{}, "nothing to check with"},
		{"a period of nothing", []string{"--health-start-period", "3s"}, workload.Health{}, nil, workload.Health{}, "nothing to check with"},
		{"another interval of nothing", []string{"--health-start-interval", "3s"}, workload.Health{Test: []string{"NONE"}}, nil, workload.Health{}, "nothing to check with"},
		{"the image's figures of nothing", nil, workload.Health{Interval: time.Second, Timeout: -1}, nil, workload.Health{}, ""},
		{"both", []string{"--no-healthcheck", "--health-cmd", "x"}, check, nil, workload.Health{}, "contradicts"},
		{"short", []string{"--health-interval", "3us", "--health-cmd", "x"}, check, nil, workload.Health{}, "too short"},
		{"negative", []string{"--health-retries", "-1", "--health-cmd", "x"}, check, nil, workload.Health{}, "not a number of failures"},
		{"a hostile image", nil, workload.Health{Test: []string{"CMD", "a\x00b"}}, nil, workload.Health{}, "zero byte"},
		{"an unknown kind", nil, workload.Health{Test: []string{"HTTP", "x"}}, nil, workload.Health{}, "of kind"},
		{"a hostile figure", nil, workload.Health{Test: []string{"CMD", "x"}, Timeout: -time.Second}, nil, workload.Health{}, "too short"},
		{"another in its place", []string{"--health-timeout", "1s"}, workload.Health{Test: []string{"CMD", "x"}, Timeout: -time.Second}, nil,
			workload.Health{Test: []string{"CMD", "x"}, Timeout: time.Second}, ""},
		{"an image in a hurry", nil, workload.Health{Test: []string{"CMD", "x"}, Interval: time.Millisecond}, nil, workload.Health{}, "too short"},
		{"at the start", nil, workload.Health{Test: []string{"CMD", "x"}, StartInterval: time.Millisecond}, nil, workload.Health{}, "too short"},
		{"somebody in a hurry", []string{"--health-interval", "1ms"}, workload.Health{Test: []string{"CMD", "x"}, Interval: 2 * time.Millisecond}, nil,
			workload.Health{Test: []string{"CMD", "x"}, Interval: time.Millisecond}, ""},
	} {
		spec, err := parse(t, append(tt.flags, "image", "true"), ImageConfig{Health: tt.image, Shell: tt.shell})
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: got %v, want %q", tt.name, err, tt.err)
			}
		case err != nil:
			t.Errorf("%s: %v", tt.name, err)
		default:
			if d := cmp.Diff(tt.want, spec.Health); d != "" {
				t.Errorf("%s: %s", tt.name, d)
			}
		}
	}
}

func TestUpdateFlags(t *testing.T) {
	for _, tt := range []struct {
		flags []string
		err   string
	}{
		{[]string{"--memory", "64m"}, ""},
		{[]string{"--pids-limit", "-1"}, ""},
		{[]string{"--restart", "no"}, ""},
		{[]string{"--cpus", "2", "--cpu-shares", "10", "--cpuset-cpus", "0", "--blkio-weight", "10"}, ""},
		{nil, "needs something to change"},
		{[]string{"--memory", "0"}, "less than the 6 MiB"},
		{[]string{"--cpus", "3"}, "this machine has 2"},
		{[]string{"--cpus", "0"}, "not a number of processors"},
		{[]string{"--pids-limit", "1"}, "takes two processes"},
		{[]string{"--cpu-shares", "1"}, "out of range"},
		{[]string{"--restart", "often"}, "unknown policy"},
	} {
		var o UpdateOptions
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		o.AddFlags(fs)
		if err := fs.Parse(tt.flags); err != nil {
			t.Fatal(err)
		}
		_, err := o.Check(testHost(), fs.Changed)
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%q: got %v, want %q", tt.flags, err, tt.err)
		}
	}
}
