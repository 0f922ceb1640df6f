package qemu

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys"
)

// Fingerprint stands for everything that a machine which goes on from a saved
// state must have in common with the one that was saved: its command line,
// kernel, initramfs, the very files of QEMU, the host's processor, and, under KVM,
// the host's kernel and the settings of KVM. It is a SHA-256 in hexadecimal. Files are taken to be the same while their inode, size
// and times are. parts says, for people, what is in it.
//
// c is the configuration of the machine that is saved, with empty slots for all
// disks and network devices that clones fill.
func Fingerprint(c Config) (sum string, parts map[string]string, err error) {
	c.withDefaults()
	h, err := hostFor(c.Accel)
	if err != nil {
		return "", nil, err
	}
	return fingerprint(c, h)
}

func fingerprint(c Config, on host) (sum string, parts map[string]string, err error) {
	if c.Binary, err = find(c.Binary); err != nil {
		return "", nil, err
	}
	c.State = nil
	c.RAM = &RAM{Shared: true}
	if err := c.check(); err != nil {
		return "", nil, err
	}
	binds, err := findClosure(c.Binary)
	if err != nil {
		return "", nil, err
	}
	h := sha256.New()
	for _, a := range Command(c) {
		fmt.Fprintf(h, "%q\n", a)
	}
	fmt.Fprintf(h, "%q\n", []string{on.processor, on.kernel, on.settings})
	files := []string{c.Kernel}
	if c.Initramfs != "" {
		files = append(files, c.Initramfs)
	}
	for _, b := range binds {
		files = append(files, b.from)
	}
	for _, name := range files {
		fi, err := os.Stat(name)
		if err != nil {
			return "", nil, err
		}
		id, err := sys.Identity(fi)
		if err != nil {
			return "", nil, err
		}
		fmt.Fprintln(h, id)
	}
	model, _, _ := strings.Cut(on.processor, "\n")
	parts = map[string]string{
		"machine": string(c.Machine), "accelerator": string(c.Accel), "cpus": strconv.Itoa(c.CPUs), "memory": strconv.FormatInt(c.Memory, 10),
		"kernel": c.Kernel, "initramfs": c.Initramfs, "arguments": c.kernelArgs(), "qemu": c.Binary, "processor": model,
		"disks": strconv.Itoa(len(c.Disks)), "interfaces": strconv.Itoa(len(c.NICs)),
	}
	if on.kernel != "" {
		parts["host"] = on.kernel
	}
	return hex.EncodeToString(h.Sum(nil)), parts, nil
}

// host is what decides, beside QEMU, about the processor that a guest has.
type host struct {
	processor string
	// Under KVM a guest has what of the processor the host's kernel can offer: the
	// kernel's release and version, and the settings with which KVM runs. Emulation
	// depends on none of them.
	kernel, settings string
}

func hostFor(a Accel) (h host, err error) {
	if h.processor, err = processor(); err != nil || a != KVM {
		return h, err
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return h, os.NewSyscallError("uname", err)
	}
	h.kernel = unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Version[:])
	h.settings, err = kvmSettings("/sys/module")
	return h, err
}

// kvmSettings are the parameters of KVM's modules, loaded or built in.
func kvmSettings(modules string) (string, error) {
	files, err := filepath.Glob(filepath.Join(modules, "kvm*", "parameters", "*"))
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrPermission) { // there are some to be written only
			return "", err
		}
		fmt.Fprintf(&text, "%s=%q\n", strings.TrimPrefix(name, modules), b)
	}
	return text.String(), nil
}

// processor is what the first processor of the host says of itself, its name
// first: what a guest is offered depends on it.
func processor() (string, error) {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(string(b), "\n\n")
	said := map[string]string{}
	for line := range strings.Lines(first) {
		name, value, _ := strings.Cut(line, ":")
		said[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	var lines []string
	for _, name := range []string{"model name", "vendor_id", "cpu family", "model", "stepping", "microcode", "flags"} {
		lines = append(lines, said[name])
	}
	return strings.Join(lines, "\n"), nil
}
