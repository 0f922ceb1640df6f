package bridge

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// BenchmarkAttach is what a workload pays for its network, in parts.
func BenchmarkAttach(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root")
	}
	dir := b.TempDir()
	s, err := Open(filepath.Join(dir, "root"), filepath.Join(dir, "run"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	first := request("bridge") // makes the bridge
	if _, err := s.Attach(ctx, first); err != nil {
		b.Fatal(err)
	}
	defer func() {
		s.Release(ctx, first.ID)
		n, err := s.read("bridge")
		if err == nil {
			err = s.remove(ctx, n)
		}
		if err != nil {
			b.Error(err)
		}
		s.t.drop()
	}()
	for _, tt := range []struct {
		name                 string
		attach, enter, ports bool
	}{{"attach", true, false, false}, {"attach with a port", true, false, true}, {"enter", false, true, false}, {"release", false, false, false}} {
		b.Run(tt.name, func(b *testing.B) {
			b.StopTimer()
			for range b.N {
				ns, err := newNetNS()
				if err != nil {
					b.Fatal(err)
				}
				r := request("bridge")
				if tt.ports {
					r.Ports = []workload.Port{{Port: 80, Protocol: "tcp"}}
				}
				step := func(count bool, f func() error) {
					if count {
						b.StartTimer()
					}
					err := f()
					b.StopTimer()
					if err != nil {
						b.Fatal(err)
					}
				}
				var a *Attached
				step(tt.attach, func() (err error) { a, err = s.Attach(ctx, r); return err })
				step(tt.enter, func() error { return a.Enter(ctx, ns) })
				ns.Close()
				a.Close()
				step(!tt.attach && !tt.enter, func() error { return s.Release(ctx, r.ID) })
			}
		})
	}
}
