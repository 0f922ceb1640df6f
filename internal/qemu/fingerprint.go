package qemu

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys"
)

// Fingerprint stands for everything that a machine which goes on from a saved
// state must have in common with the one that was saved: its command line,
// kernel, initramfs, the very files of QEMU, and the host's processor. It is a
// SHA-256 in hexadecimal. Files are taken to be the same while their inode, size
// and times are. parts says, for people, what is in it.
//
// c is the configuration of the machine that is saved, with empty slots for all
// disks and network devices that clones fill.
func Fingerprint(c Config) (sum string, parts map[string]string, err error) {
	c.withDefaults()
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
	cpu, err := processor()
	if err != nil {
		return "", nil, err
	}
	h := sha256.New()
	for _, a := range Command(c) {
		fmt.Fprintf(h, "%q\n", a)
	}
	fmt.Fprintf(h, "%q\n", cpu)
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
	model, _, _ := strings.Cut(cpu, "\n")
	return hex.EncodeToString(h.Sum(nil)), map[string]string{
		"machine": string(c.Machine), "accelerator": string(c.Accel), "cpus": strconv.Itoa(c.CPUs), "memory": strconv.FormatInt(c.Memory, 10),
		"kernel": c.Kernel, "initramfs": c.Initramfs, "arguments": c.kernelArgs(), "qemu": c.Binary, "processor": model,
		"disks": strconv.Itoa(len(c.Disks)), "interfaces": strconv.Itoa(len(c.NICs)),
	}, nil
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
