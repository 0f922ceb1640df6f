package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/pss"
)

const vmMemoryTitle = "Memory of one idle virtual machine"

// vmFootprint is the memory of one machine, in bytes of proportional set size.
type vmFootprint struct {
	label string
	// ram is what the guest's memory takes on the host, beside everything else
	// of QEMU and all other processes that belong to the machine.
	ram, beside int64
	used, size  int64 // by the guest kernel's own account
	processes   []string
	err         error
}

// vmMemory measures one kind of machine after the other: booted, as a clone
// alone, of a template of the image, beside other clones of that, and with bridge
// and volume.
func (f *field) vmMemory(ctx context.Context) []vmFootprint {
	var results []vmFootprint
	for _, g := range f.guests {
		for _, with := range []struct {
			label    string
			flags    []string
			attached bool
			others   int
		}{
			{", booted", []string{"--no-template"}, false, 0},
			{", a clone", unlikeOthers(0), false, 0},
			{", a clone of the image", nil, false, 0},
			{", a clone of the image beside four others", nil, false, 4},
			{", the same with bridge and volume", nil, true, 4},
		} {
			r := vmFootprint{label: g.label + with.label}
			e := g.engine.with(with.flags...)
			if with.attached {
				e = f.attached(e)
			}
			if with.flags == nil { // what makes the template of the image
				for range often {
					_, err := e.idle(ctx, "bulkhead-bench-often")
					r.err = errors.Join(r.err, err, e.remove(context.WithoutCancel(ctx), "bulkhead-bench-often"))
				}
			}
			var others []string
			for n := range with.others {
				name := fmt.Sprintf("bulkhead-bench-other%d", n)
				_, err := e.idle(ctx, name)
				others, r.err = append(others, name), errors.Join(r.err, err)
			}
			if r.err == nil {
				r.err = e.vmFootprint(ctx, &r)
			}
			for _, name := range others {
				r.err = errors.Join(r.err, e.remove(context.WithoutCancel(ctx), name))
			}
			results = append(results, r)
		}
	}
	return results
}

func (e engine) vmFootprint(ctx context.Context, r *vmFootprint) (err error) {
	const name = "bulkhead-bench-machine"
	before, err := pss.Snapshot()
	if err != nil {
		return err
	}
	id, err := e.idle(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.remove(context.WithoutCancel(ctx), name)) }()
	select {
	case <-time.After(settle):
	case <-ctx.Done():
		return ctx.Err()
	}
	now, err := pss.Snapshot()
	if err != nil {
		return err
	}
	for _, p := range now {
		if before.Has(p) || !e.owns(p, now, []string{strings.TrimSpace(id)}) {
			continue
		}
		r.processes = append(r.processes, p.Name)
		r.beside += p.PSS
		if p.Name != qemuProgram && p.Name != confinedQEMU {
			continue
		}
		ram, err := largestMapping(p.PID)
		if err != nil {
			return err
		}
		r.ram += ram
		r.beside -= ram
	}
	slices.Sort(r.processes)
	if r.ram == 0 {
		return errors.New("found no QEMU of the workload")
	}
	// Last, as asking costs the guest memory.
	text, err := command(ctx, e.cmd("exec", name, "/bin/cat", "/proc/meminfo")...)
	if err != nil {
		return err
	}
	r.size = meminfo(text, "MemTotal")
	r.used = r.size - meminfo(text, "MemAvailable")
	return nil
}

// largestMapping is the proportional set size of a process's largest private
// writable mapping, which in a VMM is the guest's memory.
func largestMapping(pid int) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var size, largest, pss int64
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		if strings.HasPrefix(fields[1], "rw") && strings.Contains(fields[0], "-") {
			from, to, _ := strings.Cut(fields[0], "-")
			a, err1 := strconv.ParseUint(from, 16, 64)
			b, err2 := strconv.ParseUint(to, 16, 64)
			if err := errors.Join(err1, err2); err != nil {
				return 0, err
			}
			size = int64(b - a)
			continue
		}
		if strings.Contains(fields[0], "-") {
			size = 0 // another mapping, that is not meant
		}
		if n, err := strconv.ParseInt(fields[1], 10, 64); err == nil && fields[0] == "Pss:" && size > largest {
			largest, pss = size, n<<10
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	if largest < 256<<20 {
		return 0, fmt.Errorf("process %d has no mapping of a guest's size", pid)
	}
	return pss, nil
}

// meminfo is one value of proc_meminfo(5), in bytes.
func meminfo(text, key string) int64 {
	for _, line := range strings.Split(text, "\n") {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			n, _ := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			return n << 10
		}
	}
	return 0
}

func vmMemoryTable(b *strings.Builder, results []vmFootprint) {
	fmt.Fprintf(b, "\n### %s\n\n", vmMemoryTitle)
	fmt.Fprintf(b, "Proportional set size, MB, %v after the start of a workload that sleeps, in a machine of the default size. \"Guest "+
		"memory\" is what the host gives for the guest's; \"beside\" is all else: the rest of QEMU, its translated code included, the "+
		"supervisor, and file servers; not the network's name server, which all share. What the guest uses is MemTotal less MemAvailable by its own account.\n\n", settle)
	fmt.Fprintln(b, "| | guest memory | beside | the guest uses | of | processes |")
	fmt.Fprintln(b, "|---|---:|---:|---:|---:|---|")
	mb := func(n int64) string { return fmt.Sprintf("%.1f", float64(n)/1e6) }
	for _, r := range results {
		if r.err != nil {
			fmt.Fprintf(b, "| %s | – | – | – | – | left out: %s |\n", r.label, cell(r.err.Error()))
			continue
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s |\n", r.label, mb(r.ram), mb(r.beside), mb(r.used), mb(r.size), strings.Join(r.processes, ", "))
	}
}
