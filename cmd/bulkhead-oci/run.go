package main

import (
	"context"
	"errors"
	"os/signal"
	"syscall"
)

func runRun(c *command) (code int, err error) {
	attached := !c.flags.on("detach")
	n, err := c.prepareCreate(attached)
	if err != nil {
		return 0, err
	}
	if err := n.create(); err != nil {
		return 0, err
	}
	b := n.box
	defer b.Close()
	defer n.entry.Close()
	if !attached {
		err := c.start(n.entry, b)
		if err != nil && !lost(err) {
			n.undo()
		}
		return 0, err
	}
	keep, gone := c.flags.on("keep"), false
	defer func() {
		if keep && err == nil || gone || lost(err) {
			return
		}
		if err2 := c.destroy(n.entry, b); err == nil {
			err = err2
		}
	}()
	s, err := attach(c, b.made.Terminal, b.made.Signal)
	if err != nil {
		return 0, err
	}
	defer s.close()
	if err := c.start(n.entry, b); err != nil {
		return 0, err
	}
	n.entry.unlock() // others may kill, pause, execute in it now
	exit, err := b.made.Wait(context.WithoutCancel(c.ctx))
	if err != nil {
		return 0, err
	}
	s.drain()
	ctx, stop := signal.NotifyContext(c.ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err = n.entry.relock(ctx)
	if gone = errors.Is(err, errNotExist); gone { // another command has deleted it
		err = nil
	}
	return exit.Code, err
}

// lost tells of an error that the container is in another command's hands, or was.
func lost(err error) bool { return errors.Is(err, errNotExist) || errors.Is(err, errBusy) }
