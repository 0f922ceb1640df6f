//go:build kvm

package qemu

import (
	"context"
	"testing"
	"time"
)

// The tests of this file want a processor that virtualizes. tests/guest/run -kvm
// makes one, by emulation: everything takes its time.

// TestKVMIsChosen: the accelerator is taken by itself, because a machine ran.
func TestKVMIsChosen(t *testing.T) {
	began := time.Now()
	err := runTinyMachine(t.Context(), "/dev/kvm")
	t.Logf("the tiny machine took %v", time.Since(began))
	if err != nil {
		t.Fatal(err)
	}
	for _, asked := range []string{"", "kvm"} {
		if got, err := Choose(t.Context(), asked); got != KVM || err != nil {
			t.Errorf("choose %q: %q, %v; want kvm; %+v", asked, got, err, Accelerators(t.Context()))
		}
	}
	if !Nested() {
		t.Error("the host does not say that it is virtual")
	}
	if got, err := Choose(t.Context(), "tcg"); got != TCG || err != nil {
		t.Errorf("choose tcg: %q, %v", got, err)
	}
}

// TestKVMRunsGuest starts and ends guests on each machine, confined as always.
func TestKVMRunsGuest(t *testing.T) {
	for _, machine := range []MachineType{MicroVM, Q35} {
		for _, cpus := range []int{1, 2} {
			t.Run(string(machine)+"/"+itoa(cpus), func(t *testing.T) {
				cfg := config(t, code{}.stack().print("hello\n").reset())
				cfg.Machine, cfg.Accel, cfg.CPUs = machine, KVM, cpus
				cfg.Disks = []Disk{{Serial: "image0", File: image(t, "a"), ReadOnly: true}, {Serial: "data", File: image(t, "b")}}
				m := start(t, cfg)
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				ws, err := wait(ctx, m)
				if err != nil || ws != 0 {
					t.Fatalf("QEMU ended with %v, %v: %s", ws, err, m.Stderr())
				}
				if got := string(m.Console()); got != "hello\n" {
					t.Errorf("console %q, want hello", got)
				}
				if got := string(m.Stderr()); got != "" {
					t.Errorf("QEMU said %q", got)
				}
			})
		}
	}
}

// TestKVMConfinement: QEMU has one device more, and nothing else.
func TestKVMConfinement(t *testing.T) { testConfinement(t, KVM) }
