package qemu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFingerprintOfHost: a machine under KVM goes on only where the kernel of the host
// and KVM are those under which it was saved; emulation does not depend on them.
func TestFingerprintOfHost(t *testing.T) {
	c := config(t, code{}.hang())
	c.Accel = KVM
	c.withDefaults()
	seen := map[string]host{}
	for _, h := range []host{
		{"cpu", "6.1 #1", "nested=Y"}, {"cpu", "6.1 #2", "nested=Y"}, {"cpu", "6.1 #1", "nested=N"}, {"other cpu", "6.1 #1", "nested=Y"}, {"cpu", "", ""},
	} {
		sum, parts, err := fingerprint(c, h)
		if err != nil {
			t.Fatal(err)
		}
		if was, ok := seen[sum]; ok {
			t.Errorf("%+v has the fingerprint of %+v", h, was)
		}
		seen[sum] = h
		if again, _, err := fingerprint(c, h); err != nil || again != sum {
			t.Errorf("%+v has another the next time: %v", h, err)
		}
		if parts["host"] != h.kernel {
			t.Errorf("told of the kernel %q, want %q", parts["host"], h.kernel)
		}
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	for accel, want := range map[Accel]string{KVM: unix.ByteSliceToString(u.Release[:]) + " ", TCG: ""} {
		h, err := hostFor(accel)
		if err != nil || !strings.HasPrefix(h.kernel, want) || want == "" && (h.kernel != "" || h.settings != "") || h.processor == "" {
			t.Errorf("%s: %+v, %v", accel, h, err)
		}
	}
}

// TestKVMSettings: each parameter of each of KVM's modules counts.
func TestKVMSettings(t *testing.T) {
	dir := t.TempDir()
	set := func(name, value string) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
		text, err := kvmSettings(dir)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	seen := map[string]bool{}
	for _, x := range [][2]string{{"kvm/parameters/ignore_msrs", "N\n"}, {"kvm/parameters/ignore_msrs", "Y\n"}, {"kvm_intel/parameters/nested", "Y\n"}, {"kvm_amd/parameters/nested", "Y\n"}} {
		if text := set(x[0], x[1]); seen[text] {
			t.Errorf("%s=%q counts for nothing", x[0], x[1])
		} else {
			seen[text] = true
		}
	}
	if !seen[set("loop/parameters/max_loop", "8\n")] {
		t.Error("another module counts")
	}
}
