// The runtime would read its cgroup's files at start, and keep them open.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command bulkhead-probe looks, from inside a workload of any engine, which doors
// to the host stand open. It is one static program without a configuration:
//
//	docker run --rm -v /usr/local/bin/bulkhead-probe:/probe:ro alpine /probe
//
// `bulkhead probe` runs it with -observe and judges outside what it saw: a workload
// may lie.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/probe"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// version is set by the linker, from git.
var version = "unknown"

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, in io.Reader, out, errs io.Writer) int {
	fs := flag.NewFlagSet("bulkhead-probe", flag.ContinueOnError)
	fs.SetOutput(errs)
	asJSON := fs.Bool("json", false, "write the report as JSON")
	verbose := fs.Bool("verbose", false, "show everything that was tried, and what came of it")
	file := fs.String("context", "", "read what is known outside from a `file`, as JSON")
	host := fs.Bool("host", false, "run on the host: write a context, for -context inside, instead of looking")
	observe := fs.Bool("observe", false, "read the targets from a line of standard input, write what was seen, and wait for the end of input")
	fs.Usage = func() {
		fmt.Fprint(errs, "bulkhead-probe looks from inside a workload which doors to the host stand open.\n"+
			"It exits with 0 if none does, 2 if one does, 3 if something is unknown, 4 for an error.\n\n")
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil || fs.NArg() > 0 {
		if err == nil {
			fs.Usage()
		}
		return report.ExitError
	}
	var err error
	code := report.ExitHeld
	switch {
	case *host:
		err = writeHost(out)
	case *observe:
		err = tell(in, out)
	default:
		code, err = look(*file, out, *asJSON, *verbose)
	}
	if err != nil {
		fmt.Fprintln(errs, "bulkhead-probe:", err)
		return report.ExitError
	}
	return code
}

// writeHost writes what this machine's kernel says about itself.
func writeHost(out io.Writer) error {
	h, err := probe.LocalHost()
	if err != nil {
		return err
	}
	b, err := probe.NewContext(h, nil).Encode()
	if err == nil {
		_, err = out.Write(b)
	}
	return err
}

// tell serves somebody outside, who judges, and looks at this process from there
// until he closes its input.
func tell(in io.Reader, out io.Writer) error {
	r := bufio.NewReaderSize(in, 64<<10)
	line, err := r.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("read the targets: %w", err)
	}
	c, err := probe.ParseContext(line)
	if err != nil {
		return err
	}
	b, err := probe.Observe(c.Targets).Encode()
	if err != nil {
		return err
	}
	if _, err := out.Write(b); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return err
}

// look judges here, for a person inside.
func look(file string, out io.Writer, asJSON, verbose bool) (int, error) {
	c := probe.NewContext(nil, nil)
	if file != "" {
		b, err := os.ReadFile(file)
		if err == nil {
			c, err = probe.ParseContext(b)
		}
		if err != nil {
			return 0, fmt.Errorf("read the context: %w", err)
		}
	}
	r := probe.Judge(c, probe.Observe(c.Targets), "")
	r.Subject.Label = "this workload"
	d := report.Document{
		Format: report.Format, Kind: report.Probe, Tool: "bulkhead-probe " + version,
		Time: time.Now().UTC().Truncate(time.Second), Reports: []report.Report{r},
	}
	if asJSON {
		b, err := d.Encode()
		if err == nil {
			_, err = out.Write(b)
		}
		return d.ExitCode(), err
	}
	return d.ExitCode(), r.Text(out, verbose)
}
