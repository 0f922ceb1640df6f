package container

import (
	"strings"
	"testing"
)

// Official images of web servers log to links to /dev/stdout and /dev/stderr.
func TestStreamsCanBeOpenedByName(t *testing.T) {
	out, exit := run(t, nil, "sh", "-c", "echo one >/dev/stdout && echo two >/dev/stderr")
	if exit.Code != 0 || !strings.Contains(out, "one\n") || !strings.Contains(out, "two\n") {
		t.Errorf("exit %+v, output %q", exit, out)
	}
}
