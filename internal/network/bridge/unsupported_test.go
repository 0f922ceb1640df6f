package bridge

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestWithoutNftables: a kernel without nf_tables is named, and so is the way out.
func TestWithoutNftables(t *testing.T) {
	for _, errno := range []error{unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT} {
		err := unsupported(os.NewSyscallError("socket", errno), "nf_tables")
		if !errors.Is(err, workload.ErrUnsupported) || !strings.Contains(err.Error(), "the kernel has no nf_tables") || !strings.Contains(err.Error(), "--network none") {
			t.Errorf("%v: got %q", errno, err)
		}
	}
	if err := unsupported(unix.EPERM, "nf_tables"); !errors.Is(err, unix.EPERM) || errors.Is(err, workload.ErrUnsupported) {
		t.Errorf("EPERM: got %q", err)
	}
}
