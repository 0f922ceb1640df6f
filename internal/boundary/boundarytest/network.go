package boundarytest

import (
	"os"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// testNetNS opens the network namespace of an instance, which is another than
// ours and every other instance's, the same from Create to the end of its first
// process, and none where the host's network was asked for.
func testNetNS(r *run) {
	find := func(in boundary.Instance) (uint64, error) {
		f, err := in.(boundary.NetNS).NetNS()
		if err != nil {
			return 0, err
		}
		defer f.Close()
		return inode(f)
	}
	first := r.create(r.spec("pause"), boundary.Stdio{})
	if _, ok := first.(boundary.NetNS); !ok {
		return // its networks, if it has any, arrive as taps
	}
	other := r.create(r.spec("pause"), boundary.Stdio{})
	seen := map[uint64]bool{}
	f, err := os.Open("/proc/self/ns/net")
	if err == nil {
		defer f.Close()
		var ours uint64
		ours, err = inode(f)
		seen[ours] = true
	}
	if err != nil {
		r.Fatal(err)
	}
	before, err := find(first)
	if err != nil || seen[before] {
		r.Fatalf("got namespace %d, %v", before, err)
	}
	seen[before] = true
	if n, err := find(other); err != nil || seen[n] {
		r.Errorf("another instance: got namespace %d, %v; the first has %d", n, err, before)
	}
	if err := first.Start(r.ctx()); err != nil {
		r.Fatal(err)
	}
	if n, err := find(first); err != nil || n != before {
		r.Errorf("after Start: got namespace %d, %v, want %d", n, err, before)
	}
	if err := first.Delete(r.ctx()); err != nil {
		r.Error(err)
	}
	if _, err := find(first); err == nil {
		r.Error("after Delete: a namespace and no error")
	}
	s := r.spec("pause")
	s.Network = workload.NetworkHost
	if in, err := r.Boundary.Create(r.ctx(), s, r.Prepare(r, s)); err == nil {
		if n, err := find(in); err == nil {
			r.Errorf("with the host's network: got namespace %d and no error", n)
		}
		if err := in.Delete(r.ctx()); err != nil {
			r.Error(err)
		}
	}
}

func inode(f *os.File) (uint64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Sys().(*syscall.Stat_t).Ino, nil
}
