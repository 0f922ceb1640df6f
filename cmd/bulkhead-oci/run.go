package main

import (
	"context"
	"errors"
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
		err := c.start(b)
		if err != nil {
			n.undo()
		}
		return 0, err
	}
	keep := c.flags.on("keep")
	defer func() {
		if keep && err == nil {
			return
		}
		if errors.Is(err, errNotExist) { // another command has deleted it
			err = nil
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
	if err := c.start(b); err != nil {
		return 0, err
	}
	n.entry.unlock() // others may kill, pause, execute in it now
	exit, err := b.made.Wait(context.WithoutCancel(c.ctx))
	if err != nil {
		return 0, err
	}
	s.drain()
	return exit.Code, n.entry.relock()
}
