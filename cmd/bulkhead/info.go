package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/doctor"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/safetext"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

// boundaryInfo tells whether a boundary works here.
type boundaryInfo struct {
	Name   string
	Status string // "works", "missing", "could not tell"
	Detail string `json:",omitempty"`
}

// systemInfo is what info shows. Fields that Docker has, too, have its names.
type systemInfo struct {
	Name              string
	ServerVersion     string
	Containers        int
	ContainersRunning int
	ContainersPaused  int
	ContainersStopped int
	Images            int
	Volumes           int
	Tenants           int
	Driver            string
	LoggingDriver     string
	CgroupDriver      string
	CgroupVersion     string // "v1", "v2", "hybrid" or "none"
	Boundaries        []boundaryInfo
	Accelerator       string
	SecurityOptions   []string
	KernelVersion     string
	OperatingSystem   string
	OSType            string
	Architecture      string
	NCPU              int
	MemTotal          int64 // bytes
	RootDir           string
	RunDir            string
	Warnings          []string
}

func (a *app) infoCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "info [flags]",
		Short: "Show what there is on this machine, and what works",
		Long: `Info counts workloads, images and volumes, and tells which boundaries work, how
control groups are mounted, and what else of the machine matters. Doctor looks
closer, and says how to mend what is missing.`,
		Example:           "  bulkhead info\n  bulkhead info --format '{{.Containers}} {{.CgroupVersion}}'",
		Args:              needs(0, 0, "flags"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
				info, err := a.info(ctx, e)
				if err != nil {
					return err
				}
				if format != "" {
					return output.Write(a.out, output.Listing{}, format, []systemInfo{info})
				}
				return writeInfo(a.out, info)
			})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "json or a Go `template`")
	return cmd
}

// info gathers what info shows.
func (a *app) info(ctx context.Context, e *engine.Engine) (systemInfo, error) {
	root, run, err := a.roots()
	if err != nil {
		return systemInfo{}, err
	}
	i := systemInfo{
		ServerVersion: newVersionInfo().Version, Driver: "overlay", LoggingDriver: "local", CgroupDriver: "cgroupfs",
		OSType: runtime.GOOS, Architecture: runtime.GOARCH, NCPU: a.host.CPUs, RootDir: root, RunDir: run,
		SecurityOptions: securityOptions(), Warnings: []string{},
	}
	if err := a.count(ctx, e, &i); err != nil {
		return i, err
	}
	for _, b := range a.boundaries {
		i.Boundaries = append(i.Boundaries, newBoundaryInfo(ctx, b))
	}
	i.describeHost()
	i.Accelerator = accelerator(root)
	if i.Accelerator == "tcg" {
		i.Warnings = append(i.Warnings, "virtual machines run under software emulation, which is no security boundary")
	}
	return i, nil
}

// count fills in how much of what there is.
func (a *app) count(ctx context.Context, e *engine.Engine, i *systemInfo) error {
	records, err := e.List(ctx)
	if err != nil {
		return err
	}
	for _, r := range records {
		switch {
		case r.Tenant() != "":
			i.Tenants++
			continue
		case r.Status == workload.Paused:
			i.ContainersPaused++
		case running(r.Status):
			i.ContainersRunning++
		default:
			i.ContainersStopped++
		}
		i.Containers++
	}
	store, err := a.images()
	if err != nil {
		return err
	}
	images, err := store.List()
	if err != nil && !errors.Is(err, image.ErrDamaged) {
		return err
	} else if err != nil {
		i.Warnings = append(i.Warnings, err.Error())
	}
	volumes, err := a.listVolumes(ctx, e)
	i.Images, i.Volumes = len(images), len(volumes)
	return err
}

func newBoundaryInfo(ctx context.Context, b boundary.Boundary) boundaryInfo {
	err := b.Check(ctx)
	switch {
	case err == nil:
		return boundaryInfo{Name: b.Name(), Status: "works"}
	case errors.Is(err, workload.ErrUnsupported):
		return boundaryInfo{b.Name(), "missing", err.Error()}
	}
	return boundaryInfo{b.Name(), "could not tell", err.Error()}
}

// accelerator is what would execute a guest's instructions.
func accelerator(root string) string {
	for _, acc := range doctor.Local(root).Accelerators() {
		if acc.Usable {
			return string(acc.Accel)
		}
	}
	return "none"
}

// describeHost fills in what the machine is. What cannot be found out stays
// empty.
func (i *systemInfo) describeHost() {
	i.Name, _ = os.Hostname()
	var uts syscall.Utsname
	if syscall.Uname(&uts) == nil {
		var b strings.Builder
		for _, c := range uts.Release {
			if c == 0 {
				break
			}
			b.WriteByte(byte(c))
		}
		i.KernelVersion = b.String()
	}
	i.OperatingSystem = strings.Trim(valueOf("/etc/os-release", "PRETTY_NAME="), `"`)
	kib, _, _ := strings.Cut(strings.TrimSpace(valueOf("/proc/meminfo", "MemTotal:")), " ")
	n, _ := strconv.ParseInt(kib, 10, 64)
	i.MemTotal = n << 10
	i.CgroupVersion = "none"
	if layout, err := cgroup.Detect(); err == nil {
		i.CgroupVersion = string(layout.Mode)
	}
}

// valueOf returns the rest of the first line of a file that begins with key.
func valueOf(file, key string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(io.LimitReader(f, 1<<20)); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), key); ok {
			return rest
		}
	}
	return ""
}

// securityOptions are what confines a workload by default, as far as the machine
// has it.
func securityOptions() []string {
	all := []string{"name=seccomp,profile=builtin", "name=userns", "name=no-new-privileges"}
	if on, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err == nil && strings.TrimSpace(string(on)) == "Y" {
		all = append(all, "name=apparmor")
	}
	return all
}

// writeInfo writes it for a person.
func writeInfo(w io.Writer, i systemInfo) error {
	var b strings.Builder
	line := func(name string, value any) {
		fmt.Fprintf(&b, "%-18s %s\n", name+":", safetext.Line(fmt.Sprint(value)))
	}
	line("Name", i.Name)
	line("Version", i.ServerVersion)
	line("Workloads", fmt.Sprintf("%d (%d running, %d paused, %d stopped)", i.Containers, i.ContainersRunning, i.ContainersPaused, i.ContainersStopped))
	line("Tenants", i.Tenants)
	line("Images", i.Images)
	line("Volumes", i.Volumes)
	for n, bd := range i.Boundaries {
		name := "Boundaries"
		if n > 0 {
			name = ""
		}
		text := bd.Name + ": " + bd.Status
		if bd.Detail != "" {
			text += ", " + bd.Detail
		}
		if name == "" {
			fmt.Fprintf(&b, "%-18s %s\n", "", safetext.Line(text))
		} else {
			line(name, text)
		}
	}
	line("Accelerator", i.Accelerator)
	line("Control groups", i.CgroupVersion)
	line("Security options", strings.Join(i.SecurityOptions, " "))
	line("Storage", i.Driver)
	line("Kernel", i.KernelVersion)
	line("Operating system", i.OperatingSystem)
	line("Architecture", i.OSType+"/"+i.Architecture)
	line("Processors", i.NCPU)
	line("Memory", binarySize(i.MemTotal))
	line("Root directory", i.RootDir)
	line("Run directory", i.RunDir)
	for _, warning := range i.Warnings {
		line("Warning", warning)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
