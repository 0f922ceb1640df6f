package resolve

import (
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
)

// maxPeers bounds the networks that are kept in mind: each has its table, and an
// inotify descriptor, of which a user may have 128 by default. All name servers
// count for one user, see table.watch.
const maxPeers = 32

// peers are the other networks of the engine. A workload that is in several asks
// one name server, which knows the names of all of them, for that workload only:
// a C library takes the first server's word that there is no such name.
type peers struct {
	root string // <network>/leases of each network; "" if there are none

	mu     sync.Mutex
	tables map[string]peer
}

// A peer is closed when it is dropped and nobody looks at it any more.
type peer struct {
	*table
	unused runtime.Cleanup
}

// close closes all, which nobody looks at any more.
func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.tables {
		t.unused.Stop()
		t.table.close()
	}
	p.tables = nil
}

// of returns the tables of the other networks that a workload is in.
func (p *peers) of(l *lease, own string) (out []*table) {
	if p.root == "" {
		return nil
	}
	for _, name := range l.networks {
		if name == own || name == "" || name[0] == '.' || strings.ContainsAny(name, "/\x00") {
			continue
		}
		if t := p.table(name); t != nil && t.has(l.workload) {
			out = append(out, t)
		}
	}
	return out
}

func (p *peers) table(name string) *table {
	p.mu.Lock()
	defer p.mu.Unlock()
	known, ok := p.tables[name]
	if ok && !known.removed() {
		return known.table
	}
	delete(p.tables, name)
	if len(p.tables) >= maxPeers {
		for other := range p.tables {
			delete(p.tables, other)
			break
		}
	}
	t, err := openTable(filepath.Join(p.root, name, "leases"), name, nil)
	if err != nil {
		return nil
	}
	if p.tables == nil {
		p.tables = map[string]peer{}
	}
	p.tables[name] = peer{t, runtime.AddCleanup(t, unwatch, t.watch)}
	return t
}

// find looks for a name in other networks of the workload that asks. Names in
// the domain of one of them are no names of the world.
func (p *peers) find(l *lease, own, name string) (all []netip.Addr, found, ours bool) {
	for _, t := range p.of(l, own) {
		if all, ok := t.addresses(name); ok {
			return all, true, true
		}
		ours = ours || strings.HasSuffix(name, "."+t.domain)
	}
	return nil, false, ours
}

// pointer looks for who has an address in other networks of the workload.
func (p *peers) pointer(l *lease, own string, a netip.Addr) (string, bool) {
	for _, t := range p.of(l, own) {
		if name, ok := t.pointer(a); ok {
			return name, true
		}
	}
	return "", false
}
