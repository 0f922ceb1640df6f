package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestLight keeps out what would make every workload cost more memory and time,
// and what a process that holds no credential has no use for.
func TestLight(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs Go")
	}
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	const ours = "github.com/seed-f5e3b97b/bulkhead/"
	if !slices.Contains(deps, ours+"internal/engine/supervisor") {
		t.Fatalf("this is no list of dependencies: %q", out)
	}
	heavy := []string{
		"net/http", "crypto/tls", "html/template", "text/template",
		ours + "internal/engine", ours + "internal/image", ours + "internal/cli",
		ours + "internal/network/bridge", ours + "internal/network/dns", ours + "internal/network/user",
		"github.com/spf13/cobra", "github.com/google/go-containerregistry", "github.com/vishvananda/netlink",
		"github.com/google/nftables", "github.com/klauspost/compress",
	}
	for _, d := range deps {
		for _, h := range heavy {
			if d == h || strings.HasPrefix(d, h+"/") && h != ours+"internal/engine" {
				t.Errorf("the supervisor imports %s", d)
			}
		}
	}
}
