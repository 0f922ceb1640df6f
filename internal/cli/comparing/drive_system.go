package comparing

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// system is a whole system in a machine of its own: the image's init, with
// programs beside it by exec. It has started when its init says so, and a program
// in it has answered; it ends when it has powered off.
type system struct {
	oursDriver
	image   string // another image than the one compared, "" for that
	prepare func(ctx context.Context, image string) (*made, error)
	name    string
	up      bool // the system that commands run in
}

func (s *system) setUp(ctx context.Context, m *made) (err error) {
	if s.image != "" {
		if m, err = s.prepare(ctx, s.image); err != nil {
			return err
		}
	}
	s.oursDriver.image, s.made, s.name = m.ours, m, newName("system")
	return s.need(ctx)
}

// need starts the system that commands run in, unless it is up.
func (s *system) need(ctx context.Context) error {
	if s.up {
		return nil
	}
	err := s.boot(ctx, s.name, nil)
	s.up = err == nil
	return err
}

// stand: commands start their system themselves, as most measures have none.
func (s *system) stand(context.Context) {}

func (s *system) rest(ctx context.Context) error {
	if !s.up {
		return nil
	}
	err := s.oursDriver.remove(ctx, s.name)
	s.up = err != nil
	return err
}

// boot starts a system with the image's init, until it answers.
func (s *system) boot(ctx context.Context, name string, how []string) error {
	run := slices.Concat(s.begin("run"), []string{"-d", "--name", name}, how, s.flags, []string{s.oursDriver.image})
	if _, err := output(ctx, run...); err != nil {
		return err
	}
	_, err := s.enter(ctx, name, []string{meterPath, "hello"})
	if err == nil {
		err = s.settled(ctx, name)
	}
	if err != nil {
		err = errors.Join(err, s.oursDriver.remove(context.WithoutCancel(ctx), name))
	}
	return err
}

// settled waits until systemd has started what it starts, if it is the init. Units
// that failed are not what is measured. Early in its life it cannot be asked, and
// loses the signal to power off.
func (s *system) settled(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		cmd := prepared(ctx, s.args("exec", name, "systemctl", "is-system-running", "--wait")...)
		out, err := outputOf(ctx, cmd, ordinary{})
		switch state := strings.TrimSpace(out); {
		case state == "running" || state == "degraded":
			return nil
		case cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == exitNotFound:
			return nil // another init, which cannot be asked
		case ctx.Err() != nil:
			return fmt.Errorf("the system has not started within %v: %w", patience, err)
		}
		_ = wait(ctx, 50*time.Millisecond) // the next round sees why it ended early
	}
}

// exitNotFound is the exit code of exec for a program that is not there.
const exitNotFound = 127

// ended: what a program leaves goes with its system.
func (s *system) ended(context.Context, string, error) error { return nil }

func (s *system) command(ctx context.Context, _ string, program []string) (*exec.Cmd, error) {
	if err := s.need(ctx); err != nil {
		return nil, err
	}
	return prepared(ctx, s.args(append([]string{"exec", "-i", s.name}, program...)...)...), nil
}

func (s *system) start(ctx context.Context, program []string) (first, end time.Duration, err error) {
	name := newName("system")
	start := time.Now()
	if err := s.boot(ctx, name, nil); err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, s.oursDriver.remove(context.WithoutCancel(ctx), name)) }()
	first = time.Since(start)
	var silent error
	if len(program) > 0 && program[0] != meterPath {
		spoke, _, err := timed(ctx, prepared(ctx, s.args(append([]string{"exec", name}, program...)...)...), s)
		if err != nil && !errors.Is(err, errSilent) {
			return 0, 0, err
		}
		first, silent = first+spoke, err
	}
	if _, err := output(ctx, s.args("stop", name)...); err != nil {
		return 0, 0, err
	}
	return first, time.Since(start), silent
}

// detach boots another system. What it idles with is its own init; a server is
// started beside that.
func (s *system) detach(ctx context.Context, name string, program []string, ports bool) (string, error) {
	var how []string
	if ports {
		how = []string{"-p", "127.0.0.1::" + servedPort}
	}
	if err := s.boot(ctx, name, how); err != nil {
		return "", err
	}
	if ports {
		if _, err := output(ctx, s.args(append([]string{"exec", "-d", name}, program...)...)...); err != nil {
			return "", errors.Join(err, s.oursDriver.remove(context.WithoutCancel(ctx), name))
		}
	}
	id, err := output(ctx, s.args("inspect", "--format", "{{.Id}}", name)...)
	return short(id), err
}
