package supervisor

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
)

// plugged is a machine that takes whatever is connected to a network device of
// its own, and keeps what it read there.
type plugged struct {
	boundary.Host
	text   string
	stream bool
}

func (p *plugged) Plug(_ context.Context, tap *os.File, stream bool) (string, func(), error) {
	b, err := io.ReadAll(tap)
	p.text, p.stream = string(b), stream
	return "02:00:00:00:00:01", func() {}, err
}

// TestPlug: the descriptor that follows the request arrives at the machine, and
// one that does not come along is no reason to ask it.
func TestPlug(t *testing.T) {
	ours, theirs, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "frames")
	w.Close()
	if err := wire.SendFile(theirs, r); err != nil {
		t.Fatal(err)
	}
	r.Close()
	h := &plugged{}
	device, _, err := plug(t.Context(), ours, h, true)
	if err != nil || device != "02:00:00:00:00:01" || h.text != "frames" || !h.stream {
		t.Errorf("got %s, %v; the machine read %q, stream %v", device, err, h.text, h.stream)
	}
	*h = plugged{text: "not asked"}
	if _, err := theirs.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := plug(t.Context(), ours, h, false); !errors.Is(err, wire.ErrProtocol) || h.text != "not asked" {
		t.Errorf("a byte without a descriptor: got %v, the machine read %q", err, h.text)
	}
	theirs.Close()
	if _, _, err := plug(t.Context(), ours, h, false); err == nil {
		t.Error("the end of the other side: no error")
	}
}
