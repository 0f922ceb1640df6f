package ociruntime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/capped"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/orphan"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// run runs one command of the runtime, unless the workload is paused.
func (i *instance) run(ctx context.Context, stdio boundary.Stdio, args ...string) ([]byte, error) {
	i.pausing.RLock()
	defer i.pausing.RUnlock()
	if i.paused {
		return nil, errPaused
	}
	return i.command(ctx, stdio, args...)
}

// command runs one command of the runtime, in the stage and in the workload's
// cgroup. Its standard output is returned, but for those that leave a process
// behind.
func (i *instance) command(ctx context.Context, stdio boundary.Stdio, args ...string) ([]byte, error) {
	i.alive.RLock()
	defer i.alive.RUnlock()
	if i.stage == nil {
		return nil, workload.ErrNotRunning
	}
	limit := i.runtime.timeout()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errHangs)
	defer cancel()
	logName := logFile + strconv.FormatUint(i.logs.Add(1), 10)
	log := filepath.Join(i.dir, logName)
	defer os.Remove(log)
	out, errs := capped.Buffer{Max: maxOutput}, capped.Buffer{Max: maxOutput}
	cmd := exec.CommandContext(ctx, i.runtime.Program, append(i.runtime.flags(i.spec, logName), args...)...)
	cmd.Dir, cmd.WaitDelay = "/", time.Second
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stdout, cmd.Stderr = &out, &errs
	switch args[0] {
	case "create", "exec": // what these leave behind has their streams
		null, err := container.Null()
		if err != nil {
			return nil, err
		}
		defer null.Close()
		cmd.Stdin, cmd.Stdout, cmd.Stderr = orNull(stdio.In, null), orNull(stdio.Out, null), orNull(stdio.Err, null)
	case "trace":
		out.Max = maxList
	}
	err := i.enter(func(cgroupFD int) error {
		if err := i.stage.Enter(); err != nil {
			return err
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if cgroupFD >= 0 {
			cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, cgroupFD
		}
		return i.begin(cmd)
	})
	if errors.Is(err, workload.ErrNotRunning) {
		return nil, err
	}
	if err == nil {
		err = cmd.Wait()
		i.forget(cmd.Process.Pid)
	}
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return out.Bytes(), nil
	}
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, errHangs) {
			return nil, fmt.Errorf("runtime %s: %s %w %v", i.runtime.Name, args[0], errHangs, limit)
		}
		return nil, cause
	}
	return nil, i.failure(args[0], err, complaint(log, errs.Bytes()))
}

// begin starts a command and notes its process.
func (i *instance) begin(cmd *exec.Cmd) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	if i.commands == nil {
		i.commands = map[int]bool{}
	}
	i.commands[cmd.Process.Pid] = true
	return nil
}

func (i *instance) forget(pid int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.commands, pid)
}

// enter runs start on a thread in the cgroup.
func (i *instance) enter(start func(cgroupFD int) error) error {
	i.entering.RLock()
	defer i.entering.RUnlock()
	if i.over {
		return workload.ErrNotRunning
	}
	return i.helpers.Inside(start)
}

func orNull(f, null *os.File) *os.File {
	if f == nil {
		return null
	}
	return f
}

// ownPipes gives pipes to a process's user. Programs open /dev/stdout and
// /dev/stderr by name, as many images' logs do, and that asks for the right to,
// which writing to what is open does not.
func (i *instance) ownPipes(stdio boundary.Stdio, uid uint32) error {
	owner := int(uid)
	if !i.spec.Namespaces.HostUser {
		owner += int(i.idBase)
	}
	for _, f := range []*os.File{stdio.In, stdio.Out, stdio.Err} {
		if f == nil {
			continue
		}
		fi, err := f.Stat()
		if err == nil && fi.Mode()&os.ModeNamedPipe != 0 {
			err = f.Chown(owner, -1)
		}
		if err != nil {
			return fmt.Errorf("standard stream: %w", err)
		}
	}
	return nil
}

var errHangs = errors.New("has not ended after")

// complaint is what the runtime said: the last error of its log, or else of its
// standard error.
func complaint(log string, stderr []byte) string {
	if f, err := os.Open(log); err == nil {
		text, _ := io.ReadAll(io.LimitReader(f, maxOutput))
		f.Close()
		if said := lastError(text); said != "" {
			return said
		}
	}
	lines := strings.Split(strings.TrimSpace(string(stderr)), "\n")
	return short(lines[len(lines)-1])
}

// lastError finds the last error in a log of JSON objects. Not every runtime
// separates them by newlines.
func lastError(log []byte) (said string) {
	for d := json.NewDecoder(bytes.NewReader(log)); ; {
		var record struct {
			Level, Msg string
		}
		if err := d.Decode(&record); err != nil {
			return said // its end, or no log
		}
		if record.Level == "error" || record.Level == "fatal" {
			said = short(record.Msg)
		}
	}
}

// failure makes the error of a command. The words are those of runc, crun and
// runsc, each for a program that they could not execute.
func (i *instance) failure(command string, err error, said string) error {
	if said == "" {
		said = err.Error()
	}
	text := fmt.Sprintf("runtime %s: %s: %s", i.runtime.Name, command, said)
	if command == "create" || command == "start" || command == "exec" {
		if kind := aboutProgram(said); kind != nil {
			return &programError{text, kind}
		}
	}
	return errors.New(text)
}

// programError says that the runtime could not execute a workload's program.
type programError struct {
	text string
	kind error
}

func (e *programError) Error() string { return e.text }
func (e *programError) Unwrap() error { return e.kind }

// named says it in the words of every boundary, with the program's name.
func named(err error, program string) error {
	var about *programError
	if errors.As(err, &about) {
		return fmt.Errorf("exec %q: %w", program, about.kind)
	}
	return err
}

// aboutProgram tells whether a runtime complains of the program that was to run.
func aboutProgram(said string) error {
	if !strings.Contains(said, `exec: "`) && !strings.Contains(said, "failed to load ") && !strings.Contains(said, "finding executable") &&
		!strings.Contains(said, "executable file") && !strings.Contains(said, "open executable") && !strings.Contains(said, "exec `") &&
		!strings.Contains(said, "eaccess ") { // runc's words for a program on a file system with noexec
		return nil
	}
	low := strings.ToLower(said)
	switch {
	case strings.Contains(low, "permission denied"), strings.Contains(low, "exec format error"), strings.Contains(low, "is a directory"), strings.Contains(low, "not executable"):
		return workload.ErrNotExecutable
	case strings.Contains(low, "no such file"), strings.Contains(low, "not found"), strings.Contains(low, "not a directory"):
		return workload.ErrCommandNotFound
	}
	return nil
}

// taken reads the process ID that the runtime wrote to a file, and takes the
// process over. One that is not a descendant of ours is refused: it would get the
// workload's signals.
func (i *instance) taken(name string) (*orphan.Process, error) {
	pid, err := readPid(filepath.Join(i.dir, name))
	if err != nil {
		return nil, fmt.Errorf("runtime %s: %w", i.runtime.Name, err)
	}
	p, err := orphan.Take(pid)
	if err != nil {
		return nil, fmt.Errorf("runtime %s: what it says it left behind: %w", i.runtime.Name, err)
	}
	return p, nil
}

func readPid(file string) (int, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, fmt.Errorf("it wrote no process ID: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("it wrote %q for a process ID", short(string(text)))
	}
	return pid, nil
}

func inStage(name string) string { return path.Join(container.StageDir, name) }
