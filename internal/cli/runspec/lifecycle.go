package runspec

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/pflag"
)

// LifecycleFlags say what happens to a workload while and after it runs.
type LifecycleFlags struct {
	Restart string
}

// AddFlags binds the flags to f.
func (f *LifecycleFlags) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&f.Restart, "restart", workload.RestartNo, "restart it when it has ended by itself: `policy` no, on-failure[:MAX], always or unless-stopped")
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
	return nil
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
