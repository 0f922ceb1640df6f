package qemu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// NoBoundary is to be said once to whoever runs a workload under emulation.
// QEMU's documentation, "Security", "Virtualization Use Case" and
// "Non-virtualization Use Case": faults of TCG are not treated as security bugs.
const NoBoundary = "this virtual machine runs under software emulation (TCG), which QEMU's authors do not consider a security boundary: " +
	"do not run what you must keep in; hardware virtualization (KVM) is what isolates"

// Availability is what an accelerator comes to on this host.
type Availability struct {
	Accel  Accel
	Usable bool
	// Reason says in words why it is usable or not.
	Reason string
}

// Accelerators tries each accelerator, the best first. It takes a few
// milliseconds, runLimit at worst, and is done once.
//
// KVM is usable when the processor says that it virtualizes and a machine of
// one page really runs in it: /dev/kvm can be there, and open, without either.
func Accelerators(ctx context.Context) []Availability {
	tried.Lock()
	defer tried.Unlock()
	if tried.list != nil {
		return slices.Clone(tried.list)
	}
	kvm := Availability{Accel: KVM, Usable: true, Reason: "the processor virtualizes, and a test machine ran"}
	if err := tryKVM(ctx); err != nil {
		kvm.Usable, kvm.Reason = false, err.Error()
	}
	list := []Availability{kvm, {Accel: TCG, Usable: true, Reason: "emulation works everywhere, but is no security boundary"}}
	if ctx.Err() == nil { // else it is not the accelerator's fault
		tried.list = list
	}
	return slices.Clone(list)
}

var tried struct {
	sync.Mutex
	list []Availability
}

// Choose settles what a machine runs on. Empty asks for the best that works;
// an accelerator that was asked for is never replaced by another.
func Choose(ctx context.Context, asked string) (Accel, error) {
	return choose(asked, func() []Availability { return Accelerators(ctx) })
}

func choose(asked string, available func() []Availability) (Accel, error) {
	if asked == string(TCG) {
		return TCG, nil
	}
	if asked != "" && asked != string(KVM) {
		return "", fmt.Errorf("accelerator %q: want %s or %s", asked, KVM, TCG)
	}
	for _, a := range available() {
		switch {
		case a.Usable && (asked == "" || asked == string(a.Accel)):
			return a.Accel, nil
		case asked == string(a.Accel):
			return "", fmt.Errorf("accelerator %s: %w: %s", asked, workload.ErrUnsupported, a.Reason)
		}
	}
	return "", fmt.Errorf("%w: no accelerator works", workload.ErrUnsupported)
}

func tryKVM(ctx context.Context) error {
	if runtime.GOARCH != "amd64" {
		return errors.New("an x86-64 guest needs an x86-64 processor to run on it")
	}
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	if !virtualizes(f) {
		return errors.New("the processor has neither vmx nor svm: there is no hardware virtualization here" + openAnyway())
	}
	return runTinyMachine(ctx, "/dev/kvm")
}

// openAnyway warns those who see /dev/kvm and wonder.
func openAnyway() string {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return ""
	}
	f.Close()
	return " (/dev/kvm opens, but what answers is not the processor)"
}

func virtualizes(cpuinfo io.Reader) bool {
	flags := cpuFlags(cpuinfo)
	return slices.Contains(flags, "vmx") || slices.Contains(flags, "svm")
}

// Nested reports whether this host says that it is a virtual machine itself. Its
// virtualization may then be anything from nearly as quick as the processor's to
// a hundred times slower.
func Nested() bool {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return false
	}
	defer f.Close()
	return slices.Contains(cpuFlags(f), "hypervisor")
}

// cpuFlags reads the flags of the first processor (proc_cpuinfo(5)).
func cpuFlags(cpuinfo io.Reader) []string {
	s := bufio.NewScanner(cpuinfo)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		name, flags, _ := strings.Cut(s.Text(), ":")
		if strings.TrimSpace(name) != "flags" {
			continue
		}
		return strings.Fields(flags)
	}
	return nil
}
