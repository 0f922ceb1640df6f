package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// findDocker starts a Docker of our own below the working directory, which has
// its bridge and its rules in the benchmark's network namespace. One that runs
// already has them in the machine's, where nothing is measured.
func (f *field) findDocker(ctx context.Context) (engine, error) {
	client, err := program("docker", "DOCKER")
	if err != nil {
		return engine{}, err
	}
	e := engine{
		label:       "docker",
		args:        []string{client},
		loading:     []string{"load", "-q", "-i"},
		removing:    []string{"rmi"},
		helpers:     []string{"containerd-shim-runc-v2", "containerd-shim"},
		daemons:     []string{"dockerd", "containerd"},
		dir:         f.dir,
		versionArgs: []string{"version", "--format", "{{.Server.Version}}"},
	}
	daemon, err := program("dockerd", "DOCKERD")
	if err != nil {
		return engine{}, err
	}
	socket := "unix://" + filepath.Join(f.dir, "docker.sock")
	e.args = append(e.args, "--host", socket)
	return e, f.startDocker(ctx, daemon, socket, e)
}

func (f *field) startDocker(ctx context.Context, daemon, socket string, e engine) error {
	logPath := filepath.Join(f.dir, "dockerd.log")
	log, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(daemon, "--host", socket,
		"--data-root", filepath.Join(f.dir, "docker"), "--exec-root", filepath.Join(f.dir, "docker-run"),
		"--pidfile", filepath.Join(f.dir, "docker.pid"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	f.closers = append(f.closers, func() error { return stopDocker(cmd.Process, ended) })

	deadline := time.After(30 * time.Second)
	for {
		if _, err := command(ctx, e.cmd("info")...); err == nil {
			return nil
		}
		select {
		case err := <-ended:
			ended <- err
			text, _ := os.ReadFile(logPath)
			return fmt.Errorf("dockerd ended: %v: %s", err, lastLine(text))
		case <-deadline:
			text, _ := os.ReadFile(logPath)
			return fmt.Errorf("dockerd does not answer: %s", lastLine(text))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// stopDocker ends the daemon, by force after a while.
func stopDocker(p *os.Process, ended chan error) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		p.Kill()
		<-ended
	}
	return nil
}
