package container

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestHooksHaveTheCallersUmask: what hooks make in the host's file systems is made
// as anything else that the caller starts makes it, though the host's thread works
// without a umask before and after.
func TestHooksHaveTheCallersUmask(t *testing.T) {
	old := syscall.Umask(0o027)
	defer syscall.Umask(old)
	seen := map[HookStage]string{}
	out, exit := run(t, func(c *Config) {
		c.Spec.Process.Cwd = "/made/here"
		c.Hooks = func(stage HookStage, _ int) error {
			status, err := os.ReadFile("/proc/thread-self/status")
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(status)) {
				if mask, ok := strings.CutPrefix(line, "Umask:"); ok {
					seen[stage] = strings.TrimSpace(mask)
				}
			}
			return nil
		}
	}, "sh", "-c", "umask; stat -c %a /made")
	if want := map[HookStage]string{CreateRuntime: "0027", CreateContainer: "0027"}; fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("the hooks' umask: got %v, want %v", seen, want)
	}
	if exit.Code != 0 || out != "0022\n755\n" {
		t.Errorf("the container: exit %+v, %q", exit, out)
	}
}
