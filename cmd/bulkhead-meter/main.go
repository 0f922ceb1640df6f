// The runtime would read its cgroup's files at start, and keep them open.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command bulkhead-meter measures, from inside a workload of any engine, what its
// environment costs. It is one static program without a configuration, which needs
// neither /proc nor a root that can be written to:
//
//	docker run --rm -v /usr/local/bin/bulkhead-meter:/meter:ro alpine /meter measure calls features
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/meter"
)

const usage = `bulkhead-meter measures what this environment costs.

  bulkhead-meter measure [-time 200ms] [-dir /tmp] GROUP…   as one line of JSON; groups: %s
  bulkhead-meter serve ADDRESS                              say where, and answer calls for ever
  bulkhead-meter call ADDRESS [-stream 2s] [-talk 1s]       throughput and round trips, as one line of JSON
  bulkhead-meter victim [-time 1s] [-dir /tmp]              for each line "go" a round of requests, as one line of JSON
  bulkhead-meter aggress [-most 1m] [-dir /tmp] KIND        take what is to be had until the input ends; kinds: %s
  bulkhead-meter hello                                      say so and end
  bulkhead-meter idle                                       say so and wait for SIGTERM or SIGINT
  bulkhead-meter exit                                       end
`

func main() {
	// What is timed and counted from outside comes before everything else.
	if len(os.Args) == 2 {
		switch os.Args[1] {
		case "hello":
			say("hello\n")
			os.Exit(0)
		case "exit":
			os.Exit(0)
		case "idle":
			idle()
			os.Exit(0)
		}
	}
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// say writes without what package os keeps for a file.
func say(s string) {
	for len(s) > 0 {
		n, err := syscall.Write(1, []byte(s))
		if err != nil && !errors.Is(err, syscall.EINTR) {
			os.Exit(1)
		}
		s = s[max(n, 0):]
	}
}

// idle waits without making garbage, timers or goroutines but the runtime's own for
// signals, which process 1 must have: the kernel drops those that it does not wait
// for.
func idle() {
	debug.SetGCPercent(-1)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	say("idle\n")
	<-signals
}

func run(args []string, in io.Reader, out, errs io.Writer) int {
	name := ""
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	fs := flag.NewFlagSet("bulkhead-meter "+name, flag.ContinueOnError)
	fs.SetOutput(errs)
	fs.Usage = func() {
		fmt.Fprintf(errs, usage, strings.Join(meter.Groups, ", "), strings.Join(meter.AggressorKinds(), ", "))
	}
	var err error
	switch name {
	case "measure":
		err = measure(fs, args, out)
	case "feature":
		err = feature(fs, args, out)
	case "serve":
		err = serve(fs, args, out, errs)
	case "call":
		err = call(fs, args, out)
	case "victim":
		err = victim(fs, args, in, out)
	case "aggress":
		err = aggress(fs, args, in, out)
	case "-h", "-help", "--help":
		fs.Usage()
		return 0
	default:
		err = errUsage
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		fs.Usage()
	default:
		fmt.Fprintln(errs, "bulkhead-meter:", err)
	}
	return 1
}

// errUsage tells that a command line has no meaning.
var errUsage = errors.New("usage")

func measure(fs *flag.FlagSet, args []string, out io.Writer) error {
	o := meter.Options{}
	fs.DurationVar(&o.Time, "time", 200*time.Millisecond, "how long each figure is measured")
	fs.StringVar(&o.Dir, "dir", "/tmp", "where files are made and removed")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if o.Time < time.Millisecond || o.Time > time.Minute {
		return fmt.Errorf("-time %v is not between 1ms and 1m", o.Time)
	}
	for _, g := range fs.Args() {
		if !slices.Contains(meter.Groups, g) {
			return fmt.Errorf("%q is none of the groups %s", g, strings.Join(meter.Groups, ", "))
		}
	}
	o.Groups = fs.Args()
	b, err := meter.Measure(o).Encode()
	if err == nil {
		_, err = out.Write(b)
	}
	return err
}

// feature is how measure calls this program.
func feature(fs *flag.FlagSet, args []string, out io.Writer) error {
	dir := fs.String("dir", "/tmp", "where files are made and removed")
	inside := fs.Bool("inside", false, "the namespaces that the feature needs are there")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return errUsage
	}
	return meter.Try(out, fs.Arg(0), *dir, *inside)
}

func serve(fs *flag.FlagSet, args []string, out, errs io.Writer) error {
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return errUsage
	}
	l, err := net.Listen("tcp", fs.Arg(0))
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, l.Addr()); err != nil {
		return err
	}
	return meter.Serve(l, errs)
}

func call(fs *flag.FlagSet, args []string, out io.Writer) error {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return errUsage
	}
	streaming := fs.Duration("stream", 2*time.Second, "how long to send")
	talking := fs.Duration("talk", time.Second, "how long to ask and be answered")
	if err := fs.Parse(args[1:]); err != nil {
		return err
	}
	if fs.NArg() != 0 {
		return errUsage
	}
	t, err := meter.Call(args[0], *streaming, *talking)
	if err != nil {
		return err
	}
	b, err := t.Encode()
	if err == nil {
		_, err = out.Write(b)
	}
	return err
}

func victim(fs *flag.FlagSet, args []string, in io.Reader, out io.Writer) error {
	d := fs.Duration("time", time.Second, "how long a round is")
	dir := fs.String("dir", "/tmp", "where files are made and removed")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *d < time.Millisecond || *d > time.Minute {
		return fmt.Errorf("-time %v is not between 1ms and 1m", *d)
	}
	if fs.NArg() != 0 {
		return errUsage
	}
	return meter.Victim(in, out, *dir, *d)
}

func aggress(fs *flag.FlagSet, args []string, in io.Reader, out io.Writer) error {
	most := fs.Duration("most", time.Minute, "how long it goes on where nobody ends it")
	dir := fs.String("dir", "/tmp", "where files are made and removed")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *most < time.Millisecond || *most > meter.MaxAggression {
		return fmt.Errorf("-most %v is not between 1ms and %v", *most, meter.MaxAggression)
	}
	if fs.NArg() != 1 {
		return errUsage
	}
	return meter.Aggress(fs.Arg(0), in, out, *dir, *most)
}
