package main

import (
	"context"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestDDTime(t *testing.T) {
	for out, want := range map[string]time.Duration{
		"64+0 records in\n64+0 records out\nreal 1.25\nuser 0.00\nsys 0.01\n":    1250 * time.Millisecond,
		"real 0.03\r\nuser 0.00\r\nsys 0.03\r\n[    9.1] reboot: Restarting\r\n": 30 * time.Millisecond,
		"real 0.00\n":          0,
		"dd: not found\n":      0,
		"surreal 1.00\n":       0,
		"real 1.2.3\nuser 0\n": 0,
	} {
		got, err := ddTime(out)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %v, %v; want %v", out, got, err, want)
		}
	}
}

func TestFirstOutput(t *testing.T) {
	start := time.Now()
	d, err := firstOutput(t.Context(), "/bin/sh", "-c", "echo noise; echo "+ready+"; sleep 1; echo more")
	if rest := time.Since(start) - d; err != nil || d <= 0 || rest < 500*time.Millisecond {
		t.Errorf("%v, %v, and %v after it; want the second after it not counted", d, err, rest)
	}
	for name, script := range map[string]string{"silent": "true", "failing": "echo " + ready + "; exit 3"} {
		if d, err := firstOutput(t.Context(), "/bin/sh", "-c", script); err == nil {
			t.Errorf("%s: %v, want an error", name, d)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := firstOutput(ctx, "/bin/sh", "-c", "echo "+ready); err == nil {
		t.Error("ran after the end of its context")
	}
}

// TestLargestMapping finds a mapping of a guest's size, and what of it is in use.
func TestLargestMapping(t *testing.T) {
	const size, used = 512 << 20, 8 << 20
	m, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(m)
	for i := 0; i < used; i += 4096 {
		m[i] = 1
	}
	pss, err := largestMapping(os.Getpid())
	if err != nil || pss < used || pss > used+(4<<20) {
		t.Errorf("%d bytes, %v; want about %d", pss, err, used)
	}
	if _, err := largestMapping(-1); err == nil {
		t.Error("a process that does not exist has memory")
	}
}

func TestMeminfo(t *testing.T) {
	const text = "MemTotal:         563880 kB\nMemFree:          494280 kB\nMemAvailable:     457556 kB\n"
	if got := meminfo(text, "MemAvailable"); got != 457556<<10 {
		t.Errorf("got %d", got)
	}
	if got := meminfo(text, "Mem"); got != 0 {
		t.Errorf("a part of a name: got %d", got)
	}
}
