package tsc

import (
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func kept(t *testing.T, file string) (r record) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func keep(t *testing.T, file string, r record) {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestRate asks for the rate of this machine's counter, from many places at once,
// and after whatever may have become of the file.
func TestRate(t *testing.T) {
	if !Trusted() {
		t.Skip("the kernel does not tell the time by the time stamp counter")
	}
	file := filepath.Join(t.TempDir(), "tsc")
	ask := func() int {
		t.Helper()
		kHz, err := Rate(file)
		if err != nil {
			t.Fatal(err)
		}
		return kHz
	}
	all := make([]int, 8)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			var err error
			if all[i], err = Rate(file); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, kHz := range all {
		if kHz != all[0] {
			t.Fatalf("asked at once, it is %v", all)
		}
	}
	// By the clock of everybody, over a longer time.
	a := now()
	time.Sleep(5 * shortest)
	kHz := rate(a, now())
	if !alike(kHz, all[0]) {
		t.Errorf("it is %d kHz, measured for longer %d", all[0], kHz)
	}

	// What measures confirm stays as it is, and the file too.
	r := kept(t, file)
	r.KHz += r.KHz / 20_000 // 50 ppm
	keep(t, file, r)
	before, _ := os.Stat(file)
	if got := ask(); got != r.KHz {
		t.Errorf("it is %d kHz, want %d as before", got, r.KHz)
	}
	if after, _ := os.Stat(file); after.ModTime() != before.ModTime() {
		t.Error("the file was written for nothing")
	}
	// After a restart both clocks begin anew.
	r.Counter, r.Time = now().Counter+1e15, now().Time+time.Hour
	keep(t, file, r)
	if got := ask(); got != r.KHz {
		t.Errorf("after a restart it is %d kHz, want %d as before", got, r.KHz)
	}
	if k := kept(t, file); k.Time == r.Time {
		t.Error("the moment of an earlier run of the machine was kept")
	}
	// Another processor.
	r.KHz *= 2
	keep(t, file, r)
	if got := ask(); !alike(got, kHz) {
		t.Errorf("it is %d kHz, want about %d", got, kHz)
	}
	for _, text := range []string{"", "{", `{"khz":-1}`, `{"khz":1e99}`, "\x00\x00"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := ask(); !alike(got, kHz) {
			t.Errorf("after %q it is %d kHz, want about %d", text, got, kHz)
		}
	}
	if _, err := Rate(filepath.Join(t.TempDir(), "no", "file")); err == nil {
		t.Error("a directory that does not exist is no error")
	}
}

// TestRateBetween holds moments against each other that no machine of ours has.
func TestRateBetween(t *testing.T) {
	for name, tt := range map[string]struct {
		a, b point
		want int
	}{
		"a second":        {point{1000, 0}, point{2_000_001_000, time.Second}, 2_000_000},
		"no time":         {point{1000, time.Second}, point{2000, time.Second}, 0},
		"time goes back":  {point{1000, time.Second}, point{2000, 0}, 0},
		"the counter too": {point{2000, 0}, point{1000, time.Second}, 0},
		"it stands":       {point{1000, 0}, point{1000, time.Second}, 0},
		"too slow":        {point{0, 0}, point{1000, time.Second}, 0},
		"too quick":       {point{0, 0}, point{1 << 62, time.Second}, 0},
	} {
		if got := rate(tt.a, tt.b); got != tt.want {
			t.Errorf("%s: %d kHz, want %d", name, got, tt.want)
		}
	}
}

// TestTrusted says of several hosts whether their kernel trusts the counter.
func TestTrusted(t *testing.T) {
	const good = "processor\t: 0\nflags\t\t: fpu tsc constant_tsc nonstop_tsc\n"
	for name, tt := range map[string]struct {
		source, cpu string
		want        bool
	}{
		"bare metal":            {"tsc\n", good, true},
		"under KVM":             {"kvm-clock\n", good, true},
		"unstable":              {"hpet\n", good, false},
		"not while it sleeps":   {"tsc\n", "flags : tsc constant_tsc\n", false},
		"varies with frequency": {"kvm-clock\n", "flags : tsc nonstop_tsc\n", false},
		"no flags":              {"tsc\n", "processor : 0\n", false},
	} {
		dir := t.TempDir()
		source, cpu := filepath.Join(dir, "source"), filepath.Join(dir, "cpu")
		for file, text := range map[string]string{source: tt.source, cpu: tt.cpu} {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := trusted(source, cpu); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if trusted(filepath.Join(t.TempDir(), "none"), cpuinfo) {
		t.Error("trusted without a clock source")
	}
}
