package qemu

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// guestInit serves the agent's port: it reads and writes disks by their serial
// numbers. Busybox and the drivers come with the test guest's initramfs.
const guestInit = `#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs dev /dev
while read -r module; do $bb insmod "/modules/$module"; done </modules/order
disk() {
	for s in /sys/block/*/serial; do
		if [ "$($bb cat $s)" = "$1" ]; then s=${s%/serial}; echo /dev/${s#/sys/block/}; fi
	done
}
for port in /dev/vport*p1; do exec 3<>$port; done
echo "port $($bb cat /sys/class/virtio-ports/*/name)" >&3
while read -r verb serial text <&3; do
	d=$(disk "$serial")
	case $verb in
	read) $bb blockdev --flushbufs $d; echo "got $($bb head -c 16 $d | $bb tr -d '\000')" >&3 ;;
	write) if echo "$text" 2>/dev/null | $bb dd of=$d conv=notrunc,fsync 2>/dev/null; then echo written >&3; else echo refused >&3; fi ;;
	end) $bb reboot -f ;;
	esac
done
`

// linux is a machine with Debian's kernel. It skips where the test guest
// (tests/guest) has not been prepared.
func linux(t *testing.T) Config {
	t.Helper()
	if testing.Short() {
		t.Skip("boots Linux, which takes seconds under emulation")
	}
	cfg := config(t, nil)
	cache := os.Getenv("BULKHEAD_GUEST_CACHE")
	if cache == "" {
		cache = filepath.Join("..", "..", ".cache", "guest")
	}
	found, _ := filepath.Glob(filepath.Join(cache, "*", "vmlinux"))
	if len(found) == 0 {
		t.Skip("needs the kernel of the test guest: run tests/guest/image")
	}
	cfg.Kernel = found[0]
	initrd, err := os.ReadFile(filepath.Join(filepath.Dir(found[0]), "initrd"))
	if err != nil {
		t.Fatal(err)
	}
	// The kernel unpacks one archive after the other; the last file of a name stays.
	cfg.Initramfs = filepath.Join(t.TempDir(), "initramfs")
	if err := os.WriteFile(cfg.Initramfs, append(pad(initrd), archive("init", guestInit)...), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg.Machine, cfg.Memory = Q35, 256*mib
	return cfg
}

func pad(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }

// archive makes a cpio archive of one executable file (format newc,
// Documentation/driver-api/early-userspace/buffer-format.rst).
func archive(name, content string) []byte {
	var b bytes.Buffer
	entry := func(name, content string, mode int) {
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", 0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
		b.Write(make([]byte, -b.Len()&3))
		b.WriteString(content)
		b.Write(make([]byte, -b.Len()&3))
	}
	entry(name, content, 0o100755)
	entry("TRAILER!!!", "", 0)
	return b.Bytes()
}

// TestLinux talks to a guest with a kernel: the agent's port, and disks that
// come, go, are written and refuse to be.
func TestLinux(t *testing.T) {
	cfg := linux(t)
	cfg.Disks = []Disk{{Serial: "image0", File: image(t, "first"), ReadOnly: true}, {Serial: "image1", ReadOnly: true}, {Serial: "data", File: image(t, "")}}
	m := start(t, cfg)
	agent := m.Agent()
	agent.SetDeadline(time.Now().Add(3 * time.Minute))
	lines := bufio.NewScanner(agent)
	say := func(command, want string) {
		t.Helper()
		if command != "" {
			if _, err := agent.WriteString(command + "\n"); err != nil {
				t.Fatal(err)
			}
		}
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("%s: %q (%v), want %q; %+v", command, lines.Text(), lines.Err(), want, Diagnose(m))
		}
	}
	say("", "port "+AgentPort)
	say("read image0", "got first")
	say("read image1", "got ")
	f, err := os.Open(image(t, "second"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := m.InsertDisk(t.Context(), "image1", f); err != nil {
		t.Fatal(err)
	}
	say("read image1", "got second")
	say("write image1 oops", "refused")
	if err := m.EjectDisk(t.Context(), "image1"); err != nil {
		t.Fatal(err)
	}
	say("read image1", "got ")
	say("write data kept", "written")
	if b, err := os.ReadFile(cfg.Disks[2].File); err != nil || !strings.HasPrefix(string(b), "kept\n") {
		t.Errorf("the data disk holds %.8q, %v", b, err)
	}
	agent.WriteString("end\n")
	if ws, err := wait(t.Context(), m); err != nil || ws != 0 {
		t.Errorf("QEMU ended with %v, %v: %s", ws, err, m.Stderr())
	}
	if got := m.Stderr(); len(got) > 0 {
		t.Errorf("QEMU said %q", got)
	}
	if f := Diagnose(m); f.Who != Agent {
		t.Errorf("%+v", f)
	}
}

// TestLinuxWithoutRoot: a kernel that finds nothing to run panics.
func TestLinuxWithoutRoot(t *testing.T) {
	cfg := linux(t)
	cfg.Initramfs = ""
	m := start(t, cfg)
	if ws, err := wait(t.Context(), m); err != nil || ws != 0 {
		t.Errorf("QEMU ended with %v, %v: %s", ws, err, m.Stderr())
	}
	if f := Diagnose(m); f.Who != Kernel || !strings.Contains(f.Text, "Unable to mount root fs") {
		t.Errorf("%+v", f)
	}
}
