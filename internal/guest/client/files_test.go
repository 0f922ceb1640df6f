package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestHostileAgentFiles lets an agent answer requests about files with what must
// not be taken for an answer.
func TestHostileAgentFiles(t *testing.T) {
	say := func(messages ...any) func(*protocol.Writer) {
		return func(w *protocol.Writer) {
			for _, m := range messages {
				switch m := m.(type) {
				case string:
					w.Bytes(protocol.TypeStdout, append(make([]byte, protocol.MessageHeader), m...))
				case protocol.Reply:
					w.JSON(protocol.TypeReply, m)
				}
			}
		}
	}
	stat := func(s workload.PathStat) func(*protocol.Writer) { return say(protocol.Reply{Path: &s}) }
	read := func(i *Instance) error {
		return i.ReadArchive(t.Context(), "/x", boundary.ReadOptions{}, io.Discard)
	}
	write := func(i *Instance) error {
		return i.WriteArchive(t.Context(), "/x", boundary.ArchiveOptions{}, strings.NewReader(strings.Repeat("x", 1<<20)))
	}
	path := func(i *Instance) error { _, err := i.StatPath(t.Context(), "/x"); return err }
	changes := func(i *Instance) error { _, err := i.Changes(t.Context()); return err }
	for name, tt := range map[string]struct {
		agent func(*protocol.Writer)
		ask   func(*Instance) error
		want  string
	}{
		"cut off":            {say("half an archive"), read, "agent is gone"},
		"nothing":            {say(), read, "agent is gone"},
		"an error":           {say("x", protocol.Reply{Error: &protocol.Error{Message: "no \x1b[2J"}}), read, "no ?[2J"},
		"a long error":       {say(protocol.Reply{Error: &protocol.Error{Message: strings.Repeat("x", 100000)}}), read, "protocol error"},
		"data for a writer":  {say("x"), write, "protocol error"},
		"gone while writing": {say(), write, "agent is gone"},
		"refused early":      {say(protocol.Reply{Error: &protocol.Error{Message: "disk full"}}), write, "disk full"},
		"done early":         {say(protocol.Reply{}), write, "before the end"},
		"no path":            {say(protocol.Reply{}), path, "without one"},
		"a name of a path":   {stat(workload.PathStat{Name: "../x"}), path, "cannot be"},
		"a negative size":    {stat(workload.PathStat{Name: "x", Size: -1}), path, "cannot be"},
		"a long target":      {stat(workload.PathStat{Name: "x", LinkTarget: strings.Repeat("x", 5000)}), path, "cannot be"},
		"no list":            {say("garbage", protocol.Reply{}), changes, "malformed"},
		"half a list":        {say("A/x\x00C/"), changes, "agent is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			c := New(func(context.Context) (io.ReadWriteCloser, error) {
				host, guest := net.Pipe()
				go func() {
					defer guest.Close()
					r := protocol.NewReader(guest)
					if _, err := r.Request(); err == nil {
						tt.agent(protocol.NewWriter(guest))
					}
				}()
				return host, nil
			})
			err := tt.ask(c.Open("0"))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestReadToSlowReader ends a transfer whose reader gives up.
func TestReadToSlowReader(t *testing.T) {
	c := New(func(context.Context) (io.ReadWriteCloser, error) {
		host, guest := net.Pipe()
		go func() {
			defer guest.Close()
			w := protocol.NewWriter(guest)
			if _, err := protocol.NewReader(guest).Request(); err != nil {
				return
			}
			for w.Bytes(protocol.TypeStdout, append(make([]byte, protocol.MessageHeader), bytes.Repeat([]byte("x"), 1000)...)) == nil {
			}
		}()
		return host, nil
	})
	full := errors.New("full")
	err := c.Open("0").ReadArchive(t.Context(), "/", boundary.ReadOptions{}, limitedWriter{&full})
	if !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

type limitedWriter struct{ err *error }

func (l limitedWriter) Write([]byte) (int, error) { return 0, *l.err }
