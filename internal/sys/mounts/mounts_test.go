package mounts

import (
	"os"
	"testing"
)

func TestProbesLeaveNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if err := Overlay(dir); err != nil {
		t.Skipf("no overlay here: %v", err)
	}
	err := UserNamespace(0x70000000, 65536, func(ns *os.File) error { return IDMapped(dir, ns) })
	if err != nil {
		t.Skipf("no ID-mapped mounts here: %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestOverlayOfNothing(t *testing.T) {
	if err := Overlay("/does/not/exist"); err == nil {
		t.Error("an overlay in a directory that does not exist")
	}
}

func TestIDMappedRefusesProc(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	err := UserNamespace(0x70000000, 65536, func(ns *os.File) error { return IDMapped("/proc", ns) })
	if err == nil {
		t.Error("proc can be ID-mapped")
	}
}
