package runspec

import (
	"errors"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/pflag"
)

// ExecOptions are the flags of exec as typed.
type ExecOptions struct {
	Interactive, TTY, Detach bool
	Env, EnvFiles            []string
	Workdir, User            string
}

// AddFlags binds every flag of exec to o.
func (o *ExecOptions) AddFlags(fs *pflag.FlagSet) {
	fs.BoolVarP(&o.Interactive, "interactive", "i", false, "keep standard input open")
	fs.BoolVarP(&o.TTY, "tty", "t", false, "give the process a terminal")
	fs.BoolVarP(&o.Detach, "detach", "d", false, "leave the process running and print nothing of it")
	fs.StringArrayVarP(&o.Env, "env", "e", nil, "set a variable: `NAME=VALUE`, or NAME for your own value")
	fs.StringArrayVar(&o.EnvFiles, "env-file", nil, "read variables from a `file`, one NAME=VALUE a line")
	fs.StringVarP(&o.Workdir, "workdir", "w", "", "working `directory` inside (default: the workload's)")
	fs.StringVarP(&o.User, "user", "u", "", "run as `USER[:GROUP]` (default: the workload's)")
}

// Process returns the process that args ask for in a workload made from first,
// which is its first process as specified. Environment, directory, user and
// limits are those of the first process where the flags are silent.
func (o *ExecOptions) Process(host Host, first workload.Process, args []string) (workload.Process, error) {
	p := workload.Process{
		Args: args, Cwd: first.Cwd, User: first.User, Terminal: o.TTY,
		Rlimits: slices.Clone(first.Rlimits), Groups: slices.Clone(first.Groups),
	}
	if args[0] == "" {
		return p, advice.New("the program to run is an empty string", "write its name after the workload's")
	}
	changes, err := environment(host, o.EnvFiles, o.Env)
	if err != nil {
		return p, err
	}
	if o.Workdir != "" {
		if p.Cwd, err = cleanWorkdir("--workdir", o.Workdir); err != nil {
			return p, err
		}
	}
	base := slices.Clone(first.Env)
	if o.User != "" {
		if err := CheckUser("--user", o.User); err != nil {
			return p, err
		}
		if p.User != o.User { // another user's home is not this one's
			base = slices.DeleteFunc(base, func(e string) bool { return strings.HasPrefix(e, "HOME=") })
		}
		p.User = o.User
	}
	if o.TTY && !slices.ContainsFunc(base, func(e string) bool { return strings.HasPrefix(e, "TERM=") }) {
		base = append(base, "TERM=xterm")
	}
	p.Env = mergeEnv(base, changes)
	return p, errors.Join(checkText("argument", p.Args), checkText("variable", p.Env))
}
