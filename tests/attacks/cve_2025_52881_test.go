package attacks

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// CVE-2025-52881: what the runtime writes to files of /proc (sysctls, the label
// of a Linux security module) it wrote by paths inside the container. A process
// racing with the start, in another container that shares a volume, put a
// tmpfs or a link in the place of /proc or of the file: the label was never
// applied, or the text went to /proc/sysrq-trigger or core_pattern of the host.
//
// What prevents it here: such files are opened while the host's own /proc is in
// sight, before anything of the container's is mounted, and written through
// that descriptor. proc itself is only mounted on a directory called /proc to
// which no link leads, and nothing may be mounted inside it.
//
// Kernel facts: a write to /proc/sys/net/… applies to the network namespace of
// the thread that opened the file; /proc/thread-self/attr/… to its opener only.

func TestSysctlsAreWrittenThroughTheHostsProc(t *testing.T) {
	guardLeaks(t)
	const name = "net.ipv4.tcp_keepalive_time"
	host := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
	before, err := os.ReadFile(host)
	if err != nil {
		t.Skip("this kernel has no such parameter: ", err)
	}
	tg := newTarget(t, "sh", "-c", "cat "+host+"; (echo 99 >"+host+") 2>/dev/null && echo BAD")
	// What the path leads to in the image is nothing to us.
	tg.write(t, "proc/sys/net/ipv4/tcp_keepalive_time", "of the image", 0o666)
	tg.spec.Security.Sysctls = map[string]string{name: "1234"}
	if out := tg.run(t); out != "1234\n" {
		t.Errorf("inside: got %q", out)
	}
	after, err := os.ReadFile(host)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the host has %q now, had %q, %v", after, before, err)
	}
	inImage, err := os.ReadFile(filepath.Join(tg.layer, host))
	if err != nil || string(inImage) != "of the image" {
		t.Errorf("the image has %q now, %v", inImage, err)
	}
}

// TestWritesComeBeforeMounts reads the printed program: every write to /proc is
// opened before the container's proc exists, and none after.
func TestWritesComeBeforeMounts(t *testing.T) {
	tg := newTarget(t, "true")
	tg.spec.Security.Sysctls = map[string]string{"net.ipv4.tcp_keepalive_time": "1234"}
	tg.prep.IDBase, tg.prep.IDCount = 0x20000000, 65536
	var text bytes.Buffer
	if err := (container.Boundary{}).Explain(tg.spec, tg.prep, &text); err != nil {
		t.Fatal(err)
	}
	mounted, writes := false, 0
	for line := range strings.Lines(text.String()) {
		switch {
		case strings.Contains(line, `fsopen("proc"`):
			mounted = true
		case strings.Contains(line, `openat`) && strings.Contains(line, `"/proc/`) && strings.Contains(line, "O_WRONLY"):
			writes++
			if mounted {
				t.Errorf("after proc is mounted: %s", line)
			}
		}
	}
	if !mounted || writes < 3 { // two ID maps and at least one parameter
		t.Errorf("saw %d writes, proc mounted %v:\n%s", writes, mounted, &text)
	}
}

// TestMountsInsideProc asks for volumes at places that masks, sysctls or labels
// live at, directly and by links of the image.
func TestMountsInsideProc(t *testing.T) {
	guardLeaks(t)
	for _, where := range []string{"/proc", "/proc/self", "/proc/self/attr", "/proc/sys", "/proc/sys/kernel", "/proc/1", "/link", "/link/self/attr", "/up/../proc/sys", "/dev/link"} {
		for _, kind := range []string{"bind", "tmpfs"} {
			tg := newTarget(t, "sh", "-c", masks)
			tg.link(t, "/proc", "link")
			tg.link(t, "../proc", "up")
			tg.link(t, "/proc/sys", "dev/link")
			m := workload.Mount{Type: kind, Target: where}
			if kind == "bind" {
				m.Source = t.TempDir()
			}
			tg.spec.Mounts = []workload.Mount{m}
			if err := tg.start(t); err == nil {
				judge(t, tg.out.text(t))
				if where != "/dev/link" { // which our /dev covers
					t.Errorf("%s at %s was accepted", kind, where)
				}
			}
		}
	}
}

var _ boundary.Explainer = container.Boundary{}
