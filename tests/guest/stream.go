package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// The guest's init marks its own lines with this byte; its comment lists them.
const recordSeparator = "\x1e"

// Once its job has ended, or its time is up, the guest answers within this time:
// it is emulated, and the host may be busy.
const grace = 2 * time.Minute

// stream follows what the guest says.
//
//	(start) ── boot ──> between jobs <── run / exit ──> in a job
//	                        └── done ──> (end)
//
// Each state has a time limit; the guest's silence beyond it is a hang.
type stream struct {
	options
	out     io.Writer
	total   *count
	jobs    []job
	phases  *phases
	excuses excuses

	status  int         // of the last job
	ended   int         // jobs that have ended
	current *packageRun // nil between jobs
	left    []string    // what the current job left behind
	stop    context.CancelCauseFunc
	timer   *time.Timer
}

// follow reads to the end of the guest's output. It calls stop when the guest
// hangs.
func (s *stream) follow(r io.Reader, stop context.CancelCauseFunc) error {
	s.stop = stop
	s.expect(s.boot, "the guest did not boot")
	defer func() { s.timer.Stop() }()
	done := false
	lines := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := lines.ReadString('\n')
		if line != "" && !done {
			record, found := strings.CutPrefix(line, recordSeparator)
			switch {
			case !found:
				s.text(line)
			case strings.TrimSpace(record) == "done":
				done = true
				s.expect(grace, "the guest did not turn itself off")
			default:
				if err := s.record(strings.TrimSpace(record)); err != nil {
					return err
				}
			}
		}
		if err != nil {
			break
		}
	}
	if s.current != nil {
		s.current.finish(s.out, s.total)
		return fmt.Errorf("the guest ended in the middle of %s", s.current.name)
	}
	if !done {
		return errors.New("the guest ended early")
	}
	if s.script == "" && s.ended != len(s.jobs) {
		return fmt.Errorf("the guest ran %d of %d packages", s.ended, len(s.jobs))
	}
	return nil
}

// expect sets the time within which the guest must change its state.
func (s *stream) expect(limit time.Duration, otherwise string) {
	if s.timer != nil {
		s.timer.Stop()
	}
	stop := s.stop
	s.timer = time.AfterFunc(limit, func() { stop(fmt.Errorf("%s within %v", otherwise, limit)) })
}

// record acts on a line of the guest's init.
func (s *stream) record(line string) error {
	fields := strings.Fields(line)
	switch {
	case len(fields) == 3 && fields[0] == "boot":
		s.phases.done("booted Linux " + fields[1])
		s.expect(grace, "the guest began no job")
	case len(fields) == 2 && fields[0] == "run":
		s.expect(s.timeout+grace, fields[1]+" did not end")
		s.left = nil
		if s.script != "" {
			return nil
		}
		var err error
		s.current, err = startPackage(fields[1], s.verbose, s.out)
		return err
	case len(fields) >= 3 && fields[0] == "left":
		s.left = append(s.left, strings.Join(fields[2:], " "))
	case len(fields) == 3 && fields[0] == "exit":
		status, err := strconv.Atoi(fields[2])
		if err != nil {
			return fmt.Errorf("the guest said %q", line)
		}
		s.expect(grace, "the guest began no job")
		s.exit(status)
	default:
		return fmt.Errorf("the guest said %q", line)
	}
	return nil
}

// exit takes the end of a job.
func (s *stream) exit(status int) {
	s.ended++
	s.status = status
	if s.current == nil {
		for _, text := range s.left {
			fmt.Fprintf(s.out, "left behind: %s\n", text)
		}
		fmt.Fprintf(s.out, "exit status %d\n", status)
		return
	}
	s.current.status = status
	s.current.left = s.left
	s.current.leaks = s.leaks
	s.current.excuses = s.excuses
	s.current.finish(s.out, s.total)
	s.current = nil
}

// text takes a line of the job's output.
func (s *stream) text(line string) {
	if s.current != nil {
		s.current.write(line)
		return
	}
	io.WriteString(s.out, line)
}
