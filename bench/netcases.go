package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// netNames are the cases of networks that have virtual machines in them.
var netNames = []string{"net-pair", "net-port", "net-out"}

// machineNames are all cases with virtual machines.
func machineNames() []string { return slices.Concat(vmNames, netNames) }

const (
	meterImage   = "localhost/bulkhead-bench:meter"
	meterProgram = "/bin/bulkhead-meter" // in the image
	trafficPort  = "5201"
	// streaming and talking are how long one call of a round takes.
	streaming, talking = 1500 * time.Millisecond, 500 * time.Millisecond
)

// netCases are what is measured of networks.
func (f *field) netCases() []testcase {
	if f.outside == nil || f.meter == "" {
		return nil
	}
	build := sync.OnceValue(func() error { return meterArchive(f.meterArchive(), f.rootfs, f.meter) })
	return []testcase{f.netRun(), f.netPair(build), f.netPort(build), f.netOut(build), f.health()}
}

func (f *field) meterArchive() string { return filepath.Join(f.dir, "meter.tar") }

func (f *field) netRun() testcase {
	c := testcase{
		name:  "net-run",
		title: "`run --rm --network bridge` of /bin/true from an image",
		about: "Command line to exit, each engine with its own defaults: addresses, interfaces, rules and names are made and removed " +
			"again. Nobody else is in the networks, but for the one that says so, so that Bulkhead starts and ends the network's name " +
			"server each time; Docker's default bridge has none.",
		share: 2,
	}
	add := func(e engine, label, network string) *contender {
		c.contenders = append(c.contenders, contender{
			label: label,
			setup: func(ctx context.Context) error {
				return runner(command).exits(ctx, 7, e.runIn(network, imageName, "/bin/sh", "-c", "exit 7")...)
			},
			run: func(ctx context.Context) error {
				_, err := command(ctx, e.runIn(network, imageName, "/bin/true")...)
				return err
			},
		})
		return &c.contenders[len(c.contenders)-1]
	}
	for _, e := range f.running() {
		add(e, e.label, "bridge")
	}
	e, ok := f.plain()
	if !ok {
		return c
	}
	const network, name = "bench-run", "bulkhead-bench-run"
	with := add(e, "bulkhead, another workload in the network", network)
	check := with.setup
	with.setup = func(ctx context.Context) error {
		err := runner(command).all(ctx, e.cmd("network", "create", network), e.detached(network, name, imageName, nil, "/bin/sleep", "3600"))
		if err != nil {
			return err
		}
		return check(ctx)
	}
	with.teardown = func(ctx context.Context) error {
		return each(ctx, e.forced(name), e.cmd("network", "rm", network))
	}
	add(e, "bulkhead, --network user", "user")
	add(e, "bulkhead, --network none", "none")
	return c
}

// detached is the command line of a workload that goes on by itself.
func (e engine) detached(network, name, image string, flags []string, args ...string) []string {
	c := slices.Concat(e.cmd("run", "-d", "--pull", "never", "--network", network, "--name", name), e.running, flags)
	return append(append(c, image), args...)
}

// forced is the command line that ends and removes a workload.
func (e engine) forced(name string) []string {
	return append(append(e.cmd("rm", "-f"), e.atOnce...), name)
}

// each runs all commands and returns all errors.
func each(ctx context.Context, commands ...[]string) error {
	var errs []error
	for _, c := range commands {
		_, err := command(ctx, c...)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// A flow is one way between two ends, to measure: start makes them, call is the
// command line of bulkhead-meter call at one of them, but for how long, and stop ends them.
type flow struct {
	label, note string
	start       [][]string
	background  func(context.Context) (caller func(...string) []string, stop func() error, err error) // in the place of start
	call        []string
	stop        [][]string
}

func (w flow) contender(before func(context.Context) error) contender {
	var ended func() error
	return contender{
		label: w.label, note: w.note,
		setup: func(ctx context.Context) error {
			err := before(ctx)
			if err == nil {
				err = runner(command).all(ctx, w.start...)
			}
			if err == nil && w.background != nil {
				var caller func(...string) []string
				if caller, ended, err = w.background(ctx); err == nil {
					w.call = caller(w.call...)
				}
			}
			if err != nil {
				return err
			}
			return w.answers(ctx)
		},
		teardown: func(ctx context.Context) error {
			err := each(ctx, w.stop...)
			if ended != nil {
				err = errors.Join(err, ended())
			}
			return err
		},
		sampled: func(ctx context.Context) (sample, error) { return w.sample(ctx, streaming, talking) },
	}
}

// answering is how long the other end may take until it answers.
const answering = 15 * time.Second

// answers waits until the other end does.
func (w flow) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, answering, fmt.Errorf("no answer within %v", answering))
	defer cancel()
	for {
		_, err := w.sample(ctx, time.Millisecond, time.Millisecond)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (w flow) sample(ctx context.Context, stream, talk time.Duration) (sample, error) {
	out, err := command(ctx, append(slices.Clone(w.call), "-stream", stream.String(), "-talk", talk.String())...)
	if err != nil {
		return sample{}, err
	}
	return parseTraffic(out)
}

// netPair: two workloads in one network.
func (f *field) netPair(build func() error) testcase {
	c := testcase{
		name:  "net-pair",
		title: "Between two workloads in one bridge network",
		about: trafficAbout + " The workloads are in a network that was created for them and find each other by name.",
		share: 10,
		table: trafficTable,
	}
	add := func(label, note, key string, client, server engine) {
		network, from, to := "bench-"+key, "bulkhead-bench-"+key+"-client", "bulkhead-bench-"+key+"-server"
		w := flow{label: label, note: note,
			start: [][]string{
				server.cmd("network", "create", network),
				server.detached(network, to, meterImage, nil, meterProgram, "serve", ":"+trafficPort),
				client.detached(network, from, meterImage, nil, "/bin/sleep", "3600"),
			},
			call: client.cmd("exec", from, meterProgram, "call", to+":"+trafficPort),
			stop: [][]string{client.forced(from), server.forced(to), server.cmd("network", "rm", network)},
		}
		c.contenders = append(c.contenders, w.contender(f.withMeter(build, server)))
	}
	for _, e := range f.engines {
		add(e.label, "", "pair", e, e)
	}
	if e, ok := f.plain(); ok {
		for _, g := range f.machine() {
			add(g.label+", to a container", g.executor(), "mixed", g.engine, e)
		}
	}
	return c
}

// netPort: from a host outside through a published port.
func (f *field) netPort(build func() error) testcase {
	c := testcase{
		name:  "net-port",
		title: "From another host through a published port",
		about: trafficAbout + " The client is in another network namespace, joined by a pair of interfaces.",
		share: 10,
		table: trafficTable,
	}
	port := 5300
	add := func(e engine, label, note, network string) {
		port++
		name := fmt.Sprintf("bulkhead-bench-port%d", port)
		w := flow{label: label, note: note,
			start: [][]string{e.detached(network, name, meterImage, []string{"-p", fmt.Sprintf("%d:%s", port, trafficPort)}, meterProgram, "serve", ":"+trafficPort)},
			call:  f.outside.in(f.meter, "call", fmt.Sprintf("%s:%d", benchAddress, port)),
			stop:  [][]string{e.forced(name)},
		}
		c.contenders = append(c.contenders, w.contender(f.withMeter(build, e)))
	}
	for _, e := range f.engines {
		add(e, e.label, "", "bridge")
	}
	if e, ok := f.plain(); ok {
		add(e, "bulkhead, --network user", "pasta", "user")
	}
	for _, g := range f.machine() {
		add(g.engine, g.label, g.executor(), "bridge")
		add(g.engine, g.label+", --network user", "passt; "+g.executor(), "user")
	}
	return c
}

// netOut: from a workload to a host outside.
func (f *field) netOut(build func() error) testcase {
	c := testcase{
		name:  "net-out",
		title: "From a workload to another host",
		about: trafficAbout + " The server is in another network namespace, joined by a pair of interfaces. slirp4netns is driven by hand, " +
			"as rootless engines do: over the namespaces of an unprivileged user's container, with its sandbox and filter.",
		share: 10,
		table: trafficTable,
	}
	serve := sync.OnceValue(f.serveOutside)
	before := func(e engine) func(context.Context) error {
		prepared := f.withMeter(build, e)
		return func(ctx context.Context) error {
			if err := prepared(ctx); err != nil {
				return err
			}
			return serve()
		}
	}
	there := outsideAddress + ":" + trafficPort
	add := func(e engine, label, note, network string) {
		name := fmt.Sprintf("bulkhead-bench-out%d", len(c.contenders))
		w := flow{label: label, note: note,
			start: [][]string{e.detached(network, name, meterImage, nil, "/bin/sleep", "3600")},
			call:  e.cmd("exec", name, meterProgram, "call", there),
			stop:  [][]string{e.forced(name)},
		}
		c.contenders = append(c.contenders, w.contender(before(e)))
	}
	for _, e := range f.engines {
		add(e, e.label, "", "bridge")
	}
	if e, ok := f.plain(); ok {
		add(e, "bulkhead, --network user", "pasta", "user")
	}
	w := flow{label: "slirp4netns by hand", call: []string{f.meter, "call", there}, background: startSlirp}
	c.contenders = append(c.contenders, w.contender(func(context.Context) error { return errors.Join(build(), serve()) }))
	for _, g := range f.machine() {
		add(g.engine, g.label, g.executor(), "bridge")
		add(g.engine, g.label+", --network user", "passt; "+g.executor(), "user")
	}
	return c
}

// machine is one kind of virtual machine for cases that show what emulation costs:
// the last, and smallest.
func (f *field) machine() []guest { return f.guests[max(0, len(f.guests)-1):] }

// withMeter gives the engine the image of the program.
func (f *field) withMeter(build func() error, e engine) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := build(); err != nil {
			return err
		}
		_, err := command(ctx, e.cmd(append(slices.Clone(e.loading), f.meterArchive())...)...)
		return err
	}
}

// serveOutside starts the server of the host outside.
func (f *field) serveOutside() error {
	args := f.outside.in(f.meter, "serve", ":"+trafficPort)
	stop, err := background(args...)
	if err == nil {
		f.closers = append(f.closers, stop)
	}
	return err
}

// background starts a program that runs until stop, or until this one ends.
func background(args ...string) (stop func() error, err error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait() //nolint:errcheck // it was killed
		return err
	}, nil
}
