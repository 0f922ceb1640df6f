package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestTellEmulation: it is said once, whether it was asked for or not, and again where
// a machine had more before.
func TestTellEmulation(t *testing.T) {
	var said bytes.Buffer
	m := &machines{a: &app{err: &said}, root: t.TempDir()}
	for i, step := range []struct {
		asked, accel string
		told         bool
	}{
		{"tcg", "tcg", true},
		{"tcg", "tcg", false},
		{"", "tcg", true},
		{"", "tcg", false},
		{"", "kvm", false},
		{"tcg", "tcg", false},
		{"", "tcg", true},
		{"", "tcg", false},
		{"kvm", "kvm", false},
		{"", "tcg", true},
	} {
		said.Reset()
		m.Started(workload.VM{Accel: step.asked}, &boundary.Machine{Accel: step.accel})
		if told := strings.Contains(said.String(), qemu.NoBoundary); told != step.told {
			t.Errorf("step %d: said %q", i, &said)
		}
	}
}
