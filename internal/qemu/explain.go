package qemu

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Explain prints what Start would do with a configuration: QEMU's command, one
// option a line, and the launch program that confines it. Nothing is opened and
// nothing started; files that do not exist yet may be named.
func Explain(w io.Writer, cfg Config) error {
	cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return err
	}
	var err error
	if cfg.Binary, err = find(cfg.Binary); err != nil {
		return err
	}
	in, err := facts(cfg)
	if err != nil {
		return err
	}
	p, err := plan(cfg, in.dry(cfg))
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, commandText(cfg)+"\n"); err != nil {
		return err
	}
	_, err = p.prog.WriteTo(w)
	return err
}

// dry completes inputs by descriptors that do not exist.
func (in inputs) dry(cfg Config) inputs {
	in.statusRead, in.statusWrite, in.null, in.stderr, in.boot, in.goRead, in.goWrite = -1, -1, -1, -1, -1, -1, -1
	in.initramfs = cfg.Initramfs != ""
	for _, c := range channels {
		in.fds = append(in.fds, named{c.name, -1, c.why})
	}
	for _, d := range cfg.Disks {
		if d.File == "" {
			in.allow(d, d.slotSize())
		} else {
			if !d.ReadOnly {
				in.unknown = true
			}
			in.fds = append(in.fds, named{"disk_" + d.Serial, -1, d.File})
		}
	}
	for _, n := range cfg.NICs {
		if n.Kind != Slot {
			in.fds = append(in.fds, named{"nic_" + n.name(), -1, n.why()})
		}
	}
	if cfg.State != nil {
		in.fds = append(in.fds, named{"state", -1, stateWhy})
	}
	if c, ok := cfg.Cgroup.(interface{ Paths() map[string]string }); ok {
		in.describeCgroup(c.Paths())
	}
	return in
}

// describeCgroup names the cgroup's directories; the v2 one has no name.
func (in *inputs) describeCgroup(paths map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(paths)) {
		if name == "" {
			in.cgroup = named{paths[name], -1, ""}
		} else {
			in.tasks = append(in.tasks, named{paths[name] + "/tasks", -1, ""})
		}
	}
}

// commandText prints a command so that a shell would read it as it is.
func commandText(cfg Config) string {
	var b strings.Builder
	for i, a := range Command(cfg) {
		switch {
		case i == 0:
			b.WriteString(a)
		case strings.HasPrefix(a, "-"):
			b.WriteString(" \\\n    " + a)
		case strings.ContainsAny(a, " '\"$*?;&|<>()"):
			fmt.Fprintf(&b, " '%s'", strings.ReplaceAll(a, "'", `'\''`))
		default:
			b.WriteString(" " + a)
		}
	}
	b.WriteByte('\n')
	return b.String()
}
