package main

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestNoNewKeyring: exec keeps to what create was told of the session keyring.
func TestNoNewKeyring(t *testing.T) {
	h := newHost(t)
	h.write(func(s *specs.Spec) { s.Linux.MaskedPaths = nil }, "sleep", "1000")
	for _, c := range []struct {
		id    string
		flags []string
		named bool
	}{{"lifecycle-keyring-own", nil, true}, {"lifecycle-keyring-none", []string{"--no-new-keyring"}, false}} {
		h.must(append(append([]string{"run", "--detach", "--bundle", h.bundle}, c.flags...), c.id)...)
		out := h.must("exec", c.id, "cat", "/proc/keys")
		if got := strings.Contains(out, "_ses."+c.id); got != c.named {
			t.Errorf("%v: a keyring of the container's: %v, want %v\n%s", c.flags, got, c.named, out)
		}
		h.must("delete", "--force", c.id)
	}
}
