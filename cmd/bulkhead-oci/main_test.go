package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/selfexec"
)

// TestMain seals this program before any test: the first container without a user
// namespace would do so in the midst of one (sealFor), and all tests begin anew.
func TestMain(m *testing.M) {
	if os.Geteuid() == 0 {
		if err := selfexec.Seal(); err != nil {
			fmt.Fprintln(os.Stderr, "seal the tests' program:", err)
			os.Exit(1)
		}
		selfexec.Name()
	}
	os.Exit(m.Run())
}
