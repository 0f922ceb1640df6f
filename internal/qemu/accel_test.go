package qemu

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func TestChoose(t *testing.T) {
	no := []Availability{{KVM, false, "no vmx"}, {TCG, true, ""}}
	yes := []Availability{{KVM, true, ""}, {TCG, true, ""}}
	for _, tt := range []struct {
		asked string
		have  []Availability
		want  Accel
	}{
		{"", no, TCG}, {"", yes, KVM}, {"tcg", yes, TCG}, {"kvm", yes, KVM}, {"kvm", no, ""}, {"xen", yes, ""}, {"tcg,thread=single", yes, ""},
	} {
		got, err := choose(tt.asked, func() []Availability { return tt.have })
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("choose %q: %q, %v; want %q", tt.asked, got, err, tt.want)
		}
	}
	_, err := choose("kvm", func() []Availability { return no })
	if !errors.Is(err, workload.ErrUnsupported) || !strings.Contains(err.Error(), "no vmx") {
		t.Errorf("error %v: want not supported, with the reason", err)
	}
}

func TestVirtualizes(t *testing.T) {
	for text, want := range map[string]bool{
		"processor\t: 0\nflags\t\t: fpu vmx de\n": true,
		"flags : fpu svm\n":                       true,
		"flags : fpu vmxfoo xsvm vmmcall\n":       false,
		"vmx flags : vnmi\nflags : fpu\n":         false,
		"":                                        false,
	} {
		if got := virtualizes(strings.NewReader(text)); got != want {
			t.Errorf("virtualizes(%q) = %v, want %v", text, got, want)
		}
	}
}

func TestCPUFlags(t *testing.T) {
	const two = "processor : 0\nflags : fpu hypervisor\n\nprocessor : 1\nflags : other\n"
	if got := strings.Join(cpuFlags(strings.NewReader(two)), " "); got != "fpu hypervisor" {
		t.Errorf("flags %q, want those of the first processor", got)
	}
	if got := cpuFlags(strings.NewReader("x")); len(got) > 0 {
		t.Errorf("flags %q of nothing", got)
	}
}

// TestKVMAgreesWithTheProcessor: without the flag KVM is unusable, whatever
// /dev/kvm does.
func TestKVMAgreesWithTheProcessor(t *testing.T) {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	leakcheck.Check(t, leakcheck.Options{})
	a := Accelerators(context.Background())[0]
	t.Logf("%+v", a)
	if a.Usable && !virtualizes(strings.NewReader(string(b))) {
		t.Errorf("KVM is said to be usable on a processor without it: %s", a.Reason)
	}
	if a.Reason == "" {
		t.Error("no reason given")
	}
}

// TestTinyMachine runs it where there is a /dev/kvm: whichever implementation
// answers, the verdict comes in time and nothing stays.
func TestTinyMachine(t *testing.T) {
	if _, err := os.Stat("/dev/kvm"); err != nil {
		t.Skip("no /dev/kvm")
	}
	leakcheck.Check(t, leakcheck.Options{})
	began := time.Now()
	err := runTinyMachine(context.Background(), "/dev/kvm")
	took := time.Since(began)
	t.Logf("in %v: %v", took, err)
	if took > runLimit+5*time.Second {
		t.Errorf("took %v, bounded by %v", took, runLimit)
	}
}

func TestTinyMachineOnNoKVM(t *testing.T) {
	leakcheck.Check(t, leakcheck.Options{})
	for device, want := range map[string]string{"/dev/null": "inappropriate ioctl", "/nonexistent": "no such file"} {
		if err := runTinyMachine(context.Background(), device); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", device, err, want)
		}
	}
}

func TestJudgeTiny(t *testing.T) {
	good := make([]byte, kvmRunSize)
	binary.NativeEndian.PutUint32(good[8:], kvmExitIO)
	good[32], good[33] = 1, 1
	binary.NativeEndian.PutUint16(good[34:], tinyPort)
	binary.NativeEndian.PutUint64(good[40:], 4096)
	good[4096] = tinyValue
	if err := judgeTiny("kvm", good); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(b []byte){
		"internal error": func(b []byte) { b[8] = 17 },
		"other value":    func(b []byte) { b[4096]++ },
		"other port":     func(b []byte) { b[34]++ },
		"wild offset":    func(b []byte) { b[47] = 0xff },
	} {
		b := append([]byte(nil), good...)
		change(b)
		if judgeTiny("kvm", b) == nil {
			t.Errorf("%s: judged good", name)
		}
	}
	if judgeTiny("kvm", nil) == nil {
		t.Error("nothing at all: judged good")
	}
}
