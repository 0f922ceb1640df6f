package nofile_test // apart, so that the package under test imports nothing

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/nofile"
)

func TestBeforeSyscall(t *testing.T) {
	if os.Getenv("NOFILE_CHILD") != "" {
		os.Stdout.WriteString("soft=" + strconv.FormatUint(nofile.Soft, 10) + "\n")
		os.Exit(0)
	}
	cmd := exec.Command("/bin/sh", "-c", `ulimit -Sn 123 && exec "$0" -test.run=TestBeforeSyscall`, os.Args[0])
	cmd.Env = append(os.Environ(), "NOFILE_CHILD=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "soft=123\n") {
		t.Fatalf("started with 123 open files, read %q (%v)", out, err)
	}
}
