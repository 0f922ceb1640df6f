package dns_test

import (
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns"
)

// BenchmarkEnsure starts both processes, until they answer, and ends them.
func BenchmarkEnsure(b *testing.B) {
	p := populated(b)
	for b.Loop() {
		p.start(ports(first)...)
		b.StopTimer()
		if err := dns.Stop(b.Context(), p.cfg.Dir); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkEnsureRunning finds a name server that runs.
func BenchmarkEnsureRunning(b *testing.B) {
	p := populated(b)
	p.start(ports(first)...)
	for b.Loop() {
		p.start(ports(first)...)
	}
}

func BenchmarkAnswer(b *testing.B) {
	p := populated(b)
	newFake(b, first)
	p.start(ports(first)...)
	for _, c := range []struct{ what, name string }{{"workload", "web"}, {"upstream", "fine.example"}} {
		b.Run(c.what, func(b *testing.B) {
			conn := p.dial("udp", db4)
			defer conn.Close()
			q := question(b, c.name, a, 0)
			for b.Loop() {
				exchange(b, conn, q)
			}
			// The rate that a workload may have is what this measures in the end.
		})
	}
}
