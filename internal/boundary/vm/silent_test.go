package vm

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/client"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// silent answers the given operations and no other, and never ends a stream by
// itself.
func silent(t *testing.T, ops ...protocol.Op) *scripted {
	h := &scripted{}
	h.answer = func(req *protocol.Request, conn net.Conn) {
		for _, op := range ops {
			if req.Op == op {
				reply(conn, nil)
			}
		}
		io.Copy(io.Discard, conn)
	}
	return h
}

// TestSilentGuest has agents that are in somebody else's hands. Whatever they
// leave out, each call ends, and so does the workload.
func TestSilentGuest(t *testing.T) {
	const most = 3 * time.Minute
	took := func(t *testing.T, what string, f func() error, want error) {
		t.Helper()
		began := time.Now()
		if err := f(); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
		if d := time.Since(began); d > most {
			t.Errorf("%s took %v", what, d)
		}
	}
	t.Run("create", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b, s, p := inTenant(t, silent(t))
			took(t, "create", func() error { _, err := b.Create(t.Context(), s, p); return err }, errSilent)
		})
	})
	for _, lies := range []bool{false, true} {
		name := "kill is not answered"
		answered := []protocol.Op{protocol.OpCreate, protocol.OpStart, protocol.OpExec}
		if lies {
			name = "kill is answered and not done"
			answered = append(answered, protocol.OpSignal, protocol.OpDelete)
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, s, p := inTenant(t, silent(t, answered...))
				i, err := b.Create(t.Context(), s, p)
				if err != nil {
					t.Fatal(err)
				}
				took(t, "start", func() error { return i.Start(t.Context()) }, nil)
				executed, err := i.Exec(t.Context(), workload.Process{}, boundary.Stdio{})
				if err != nil {
					t.Fatal(err)
				}
				took(t, "pause", func() error { return i.(boundary.Pauser).Pause(t.Context()) }, errSilent)
				took(t, "list", func() error { _, err := i.(boundary.Lister).Processes(t.Context()); return err }, errSilent)
				took(t, "kill", func() error { return i.Signal(t.Context(), syscall.SIGKILL) }, nil)
				took(t, "wait", func() error { _, err := i.Wait(t.Context()); return err }, errSilent)
				began := time.Now()
				took(t, "delete", func() error { return i.Delete(t.Context()) }, nil)
				if d := time.Since(began); d > 2*killTimeout {
					t.Errorf("delete took %v after the guest had shown that it does not answer", d)
				}
				took(t, "wait for the executed", func() error { _, err := executed.Wait(t.Context()); return err }, workload.ErrNotRunning)
			})
		})
	}
	t.Run("what a killed supervisor left", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b, s, p := inTenant(t, silent(t, protocol.OpCreate))
			made, err := b.Create(t.Context(), s, p)
			if err != nil {
				t.Fatal(err)
			}
			defer made.(*lodger).Abandon()
			i, err := b.Open(t.Context(), s.ID, p.Dir)
			if err != nil {
				t.Fatal(err)
			}
			// The engine gives ten seconds, and every command tries again.
			began := time.Now()
			if err := i.Delete(t.Context()); err != nil || time.Since(began) >= 10*time.Second {
				t.Errorf("got %v after %v", err, time.Since(began))
			}
		})
	})
}

// TestStreamsKept has a guest that gives no stream back: when all are used up,
// nobody waits for one without a limit.
func TestStreamsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		go func() {
			g, err := protocol.Guest(context.Background(), theirs, protocol.Hello{})
			if err != nil {
				return
			}
			defer g.Close()
			for {
				if _, err := g.Accept(); err != nil {
					return
				}
			}
		}()
		sess, err := protocol.Host(t.Context(), ours)
		if err != nil {
			t.Fatal(err)
		}
		defer sess.Close()
		m := &machine{sess: sess}
		for range protocol.MaxStreams {
			s, err := m.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s.Close()
		}
		in := clientOf(m).Open("0000000000000000000000000000000000000000000000000000000000000001")
		err = in.ReadArchive(t.Context(), "/", boundary.ReadOptions{}, io.Discard)
		if !errors.Is(err, client.ErrGuestLost) || !errors.Is(err, errSilent) {
			t.Errorf("got %v, want that the guest does not answer", err)
		}
	})
}
