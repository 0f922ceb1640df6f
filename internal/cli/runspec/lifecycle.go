package runspec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/logfile"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/pflag"
)

// LifecycleFlags say what happens to a workload while and after it runs.
type LifecycleFlags struct {
	Restart string

	HealthCmd                     string
	HealthInterval, HealthTimeout time.Duration
	HealthStartPeriod             time.Duration
	HealthStartInterval           time.Duration
	HealthRetries                 int
	NoHealthcheck                 bool

	LogDriver string
	LogOpts   []string
}

// AddFlags binds the flags to f.
func (f *LifecycleFlags) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&f.Restart, "restart", workload.RestartNo, "restart it when it has ended by itself: `policy` no, on-failure[:MAX], always or unless-stopped")
	fs.StringVar(&f.LogDriver, "log-driver", workload.LogLocal, "what is kept of the output: `driver` local or none")
	fs.StringArrayVar(&f.LogOpts, "log-opt", nil, "`OPTION` of the log: max-size=SIZE of a file (default 10m), max-file=NUMBER of files (default 3)")
	fs.StringVar(&f.HealthCmd, "health-cmd", "", "shell `command` that tells by exit code 0 that the workload does its work")
	fs.DurationVar(&f.HealthInterval, "health-interval", 0, "`time` between checks (default: the image's, or 30s)")
	fs.DurationVar(&f.HealthTimeout, "health-timeout", 0, "`time` after which a check is killed and has failed (default: the image's, or 30s)")
	fs.DurationVar(&f.HealthStartPeriod, "health-start-period", 0, "`time` after the start in which failures do not count (default: the image's, or 0s)")
	fs.DurationVar(&f.HealthStartInterval, "health-start-interval", 0, "`time` between checks in the start period (default: the image's, or 5s)")
	fs.IntVar(&f.HealthRetries, "health-retries", 0, "`number` of failures in a row that make it unhealthy (default: the image's, or 3)")
	fs.BoolVar(&f.NoHealthcheck, "no-healthcheck", false, "do not run the image's health check")
}

// lifecycle checks the flags.
func (o *Options) lifecycle(r *Request, _ Host) (err error) {
	if r.spec.Restart, err = ParseRestart(o.Lifecycle.Restart); err != nil {
		return err
	}
	if o.Remove && r.spec.Restart.Policy != "" {
		return advice.New("--restart and --rm contradict each other: what is removed at its end cannot be restarted",
			"leave out one of the two")
	}
	if r.spec.Log, err = o.Lifecycle.log(); err != nil {
		return err
	}
	r.spec.Health, err = o.Lifecycle.health()
	return err
}

// log checks the flags of the log. Docker's json-file is refused: programs that
// ask for it may read the files, which are not JSON here.
func (f *LifecycleFlags) log() (l workload.Log, err error) {
	switch f.LogDriver {
	case workload.LogLocal, "":
	case workload.LogNone:
		if len(f.LogOpts) > 0 {
			return l, bad("--log-opt", f.LogOpts[0], "there is no log with --log-driver none", "leave out one of the two")
		}
		l.Driver = f.LogDriver
	case "json-file":
		return l, bad("--log-driver", f.LogDriver, "logs are files, but not of JSON",
			"leave it out: the default, local, has the same options max-size and max-file, and `bulkhead logs` reads it")
	default:
		return l, bad("--log-driver", f.LogDriver, "unknown driver", "give local or none; `bulkhead logs --follow` passes output on to other programs")
	}
	for _, o := range f.LogOpts {
		name, value, _ := strings.Cut(o, "=")
		switch name {
		case "max-size":
			if l.MaxSize, err = ParseSize("--log-opt", value); err != nil {
				return l, err
			}
			if l.MaxSize < logfile.LeastSize {
				return l, bad("--log-opt", o, "too small for a log", fmt.Sprintf("give at least %dk; none keeps nothing", logfile.LeastSize>>10))
			}
		case "max-file":
			n, err := strconv.ParseUint(value, 10, 31)
			if err != nil || n < 1 || n > logfile.MostFiles {
				return l, bad("--log-opt", o, "not a number of files", fmt.Sprintf("give 1 to %d", logfile.MostFiles))
			}
			l.MaxFiles = int(n)
		default:
			return l, bad("--log-opt", o, "unknown option", "the options are max-size and max-file")
		}
	}
	return l, nil
}

// health checks the flags of the health check. What they leave open, the image
// fills in.
func (f *LifecycleFlags) health() (workload.Health, error) {
	h := workload.Health{
		Interval: f.HealthInterval, Timeout: f.HealthTimeout, StartPeriod: f.HealthStartPeriod,
		StartInterval: f.HealthStartInterval, Retries: f.HealthRetries,
	}
	if f.HealthCmd != "" {
		h.Test = []string{"CMD-SHELL", f.HealthCmd}
	}
	if f.NoHealthcheck {
		if h.Test != nil || h.Interval != 0 || h.Timeout != 0 || h.StartPeriod != 0 || h.StartInterval != 0 || h.Retries != 0 {
			return h, advice.New("--no-healthcheck contradicts the other --health flags", "leave out one of the two")
		}
		return workload.Health{Test: []string{"NONE"}}, nil
	}
	if strings.ContainsRune(f.HealthCmd, 0) {
		return h, bad("--health-cmd", f.HealthCmd, "it holds a zero byte", "leave it out")
	}
	return h, checkHealth(h, func(field string) string { return "--health-" + field })
}

// checkHealth checks the figures of a health check; name names a field.
func checkHealth(h workload.Health, name func(string) string) error {
	const least = time.Millisecond
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"interval", h.Interval}, {"timeout", h.Timeout}, {"start-period", h.StartPeriod}, {"start-interval", h.StartInterval}} {
		if d.value != 0 && d.value < least {
			return bad(name(d.field), d.value.String(), "too short", fmt.Sprintf("give at least %v, such as 10s", least))
		}
	}
	if h.Retries < 0 {
		return bad(name("retries"), strconv.Itoa(h.Retries), "not a number of failures", "give 1 or more")
	}
	return nil
}

// leastOfImage is the shortest interval that an image may ask for. Each check takes the
// supervisor some milliseconds of processor time, outside of the workload's limits.
const leastOfImage = 100 * time.Millisecond

// checkImageHealth checks the figures that an image's health check has.
func checkImageHealth(h workload.Health) error {
	name := func(field string) string { return "the health check's " + field }
	if err := checkHealth(h, name); err != nil {
		return err
	}
	for field, d := range map[string]time.Duration{"interval": h.Interval, "start-interval": h.StartInterval} {
		if d != 0 && d < leastOfImage {
			return bad(name(field), d.String(), "too short for what an image may ask for", fmt.Sprintf("give at least %v", leastOfImage))
		}
	}
	return nil
}

// fillHealth takes from the image what the command line leaves open.
func (r *Request) fillHealth(s *workload.Spec, _ Host, c ImageConfig) error {
	h := &s.Health
	if len(h.Test) > 0 && h.Test[0] == "NONE" {
		return nil
	}
	image := c.Health
	if len(h.Test) == 0 {
		h.Test = image.Test
	}
	if !h.Checked() {
		if h.Interval != 0 || h.Timeout != 0 || h.StartPeriod != 0 || h.StartInterval != 0 || h.Retries != 0 {
			return advice.New(fmt.Sprintf("the --health flags have nothing to check with: image %s has no health check", s.Image.Reference),
				"give the command with --health-cmd")
		}
		*h = workload.Health{}
		return nil
	}
	for _, f := range []struct{ to, from *time.Duration }{
		{&h.Interval, &image.Interval}, {&h.Timeout, &image.Timeout},
		{&h.StartPeriod, &image.StartPeriod}, {&h.StartInterval, &image.StartInterval},
	} {
		if *f.to == 0 {
			*f.to = *f.from
		} else {
			*f.from = 0 // it does not count
		}
	}
	if h.Retries == 0 {
		h.Retries = image.Retries
	} else {
		image.Retries = 0
	}
	if err := checkImageHealth(image); err != nil {
		return badImage(s, err.Error())
	}
	switch {
	case h.Test[0] != "CMD" && h.Test[0] != "CMD-SHELL":
		return badImage(s, fmt.Sprintf("a health check of kind %q", h.Test[0]))
	case h.Test[0] == "CMD-SHELL" && len(c.Shell) > 0:
		h.Test = slices.Concat([]string{"CMD"}, c.Shell, h.Test[1:])
	}
	for _, word := range h.Test {
		if strings.ContainsRune(word, 0) {
			return badImage(s, "the health check holds a zero byte")
		}
	}
	return checkText("health check", h.Test)
}

// ParseRestart reads a restart policy as Docker writes it. "no" is the zero
// value.
func ParseRestart(s string) (workload.Restart, error) {
	policy, most, bounded := strings.Cut(s, ":")
	const fix = "give no, on-failure, on-failure:MAX, always or unless-stopped"
	r := workload.Restart{Policy: policy}
	switch policy {
	case "", workload.RestartNo:
		r.Policy = ""
	case workload.RestartAlways, workload.RestartUnlessStopped, workload.RestartOnFailure:
	default:
		return r, bad("--restart", s, "unknown policy", fix)
	}
	if !bounded {
		return r, nil
	}
	n, err := strconv.ParseUint(most, 10, 31)
	if err != nil || policy != workload.RestartOnFailure {
		return r, bad("--restart", s, "only on-failure takes a number of restarts", fix)
	}
	r.Max = int(n)
	return r, nil
}

// FormatRestart writes a policy as ParseRestart reads it.
func FormatRestart(r workload.Restart) string {
	switch {
	case r.Policy == "":
		return workload.RestartNo
	case r.Max > 0:
		return fmt.Sprintf("%s:%d", r.Policy, r.Max)
	}
	return r.Policy
}
