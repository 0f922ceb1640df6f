package agent

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// A machine can be saved with a workload made in it that is nobody's yet: all of
// one but what it runs and who it is. In each clone of the machine somebody
// adopts it. Its volumes are held (see volume): served in each clone by its host.
//
//	host ── hold, prepare ──▶ blank ── saved with the machine ──▶ clone: blank ── volume, adopt ──▶ created

// prepare makes a workload for nobody.
func (a *Agent) prepare(ctx context.Context, c *protocol.Create) error {
	if c == nil || c.Spec.ID != protocol.Nobody && c.Spec.ID != protocol.Rehearsal || c.Spec.VM.System || len(c.NICs) > 0 {
		return fmt.Errorf("%w: a workload that cannot be for anybody", protocol.ErrProtocol)
	}
	b, err := a.build(ctx, c, true)
	if err != nil {
		return err
	}
	if _, ok := b.e.inst.(boundary.Adopter); !ok {
		b.end()
		return fmt.Errorf("%w: a workload for nobody", workload.ErrUnsupported)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.blanks[c.Spec.ID] = b
	return nil
}

// adopt gives what prepare made to a workload, and serves its first process.
// Whatever the outcome, nobody else can have it.
func (a *Agent) adopt(ctx context.Context, st *stream, ad *protocol.Adopt) {
	making, phases := traced(ctx, ad != nil && ad.Trace)
	b, err := a.claim(ad)
	if err != nil {
		st.reply(protocol.Reply{}, err)
		return
	}
	if err := b.adopt(making, ad); err != nil {
		b.end()
		st.reply(protocol.Reply{}, err)
		return
	}
	st.live(b, phases())
}

// claim takes what prepare made out of everybody's reach.
func (a *Agent) claim(ad *protocol.Adopt) (*built, error) {
	if err := checkAdopt(ad); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	b := a.blanks[ad.Of]
	if b == nil {
		return nil, fmt.Errorf("%w: there is nothing to adopt", protocol.ErrProtocol)
	}
	if a.workloads[ad.ID] != nil {
		return nil, fmt.Errorf("workload %s exists in the guest: %w", ad.ID.Short(), workload.ErrRunning)
	}
	delete(a.blanks, ad.Of)
	delete(a.workloads, b.e.id)
	b.e.id = ad.ID
	a.workloads[ad.ID] = b.e
	return b, nil
}

func (b *built) adopt(ctx context.Context, ad *protocol.Adopt) error {
	adopting := trace.Step(ctx, "workload adopted")
	defer adopting.End()
	if len(ad.Files) != len(b.e.files) {
		return fmt.Errorf("%w: adopt: %d files, it was made with %d", protocol.ErrProtocol, len(ad.Files), len(b.e.files))
	}
	for target, text := range ad.Files {
		file, ok := b.e.files[target]
		if !ok {
			return fmt.Errorf("%w: adopt: it was made without %.80q", protocol.ErrProtocol, target)
		}
		if err := os.WriteFile(file, text, 0o644); err != nil { // the file that is mounted there, not another
			return fmt.Errorf("files of the workload: %w", err)
		}
	}
	for _, name := range b.volumes {
		if err := b.e.a.volumeServed(name); err != nil {
			return err
		}
	}
	inst := b.e.inst.(boundary.Adopter) // prepare has looked
	if err := inst.Adopt(ctx, boundary.Adoption{ID: ad.ID, Hostname: ad.Hostname, Args: ad.Args, Env: ad.Env}); err != nil {
		return err
	}
	if b.io.Terminal() != nil && ad.Rows > 0 && ad.Cols > 0 {
		if err := b.io.Terminal().Resize(ad.Rows, ad.Cols); err != nil {
			return err
		}
	}
	adopting.End()
	return b.e.attach(ctx, ad.NICs)
}

// discard ends what prepare made and nobody adopted, and takes away what hold
// mounted and nobody served.
func (a *Agent) discard() {
	held := map[string]*volume{}
	a.mu.Lock()
	all := a.blanks
	a.blanks = map[workload.ID]*built{}
	for name, v := range a.volumes {
		if v.held {
			held[name], v.held = v, false
		}
	}
	a.mu.Unlock()
	for _, b := range all {
		b.end()
	}
	for name, v := range held {
		a.dropVolume(name, v)
	}
}

// checkAdopt looks at what becomes a path or a number here.
func checkAdopt(ad *protocol.Adopt) error {
	var err error
	if ad == nil {
		err = errors.New("nothing")
	} else if _, err = workload.ParseID(string(ad.ID)); err == nil {
		err = checkNICs(ad.NICs)
	}
	if err != nil {
		return fmt.Errorf("%w: adopt: %w", protocol.ErrProtocol, err)
	}
	return nil
}
