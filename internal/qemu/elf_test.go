package qemu

import (
	"debug/elf"
	"slices"
	"testing"
)

// TestNeeded compares what QEMU and its libraries name with what debug/elf finds.
func TestNeeded(t *testing.T) {
	binary, err := find("")
	if err != nil {
		t.Fatal(err) // make test installs QEMU
	}
	binds, err := findClosure(binary)
	if err != nil {
		t.Fatal(err)
	}
	libraries := 0
	for _, b := range binds {
		f, err := elf.Open(b.from)
		if err != nil {
			continue // firmware
		}
		defer f.Close()
		var want [3][]string
		for i, tag := range []elf.DynTag{elf.DT_NEEDED, elf.DT_RPATH, elf.DT_RUNPATH} {
			want[i], _ = f.DynString(tag) // none is fine
		}
		got, paths, err := needed(f)
		if err != nil || !slices.Equal(got, want[0]) || !slices.Equal(paths, slices.Concat(want[1], want[2])) {
			t.Errorf("%s: got %q, %q, %v, want %q", b.from, got, paths, err, want)
		}
		libraries += len(got)
	}
	if libraries == 0 {
		t.Errorf("nothing of %d files names a library", len(binds))
	}
}
