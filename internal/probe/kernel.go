package probe

import (
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

const bootID = "/proc/sys/kernel/random/boot_id"

var readBootID = readCall(bootID)

func kernelProbes() []Probe {
	return []Probe{
		{
			ID: "kernel.own", Door: "the host's kernel", Expected: "a boot ID that is not the host's",
			Enables:     "every fault of the host's kernel that a system call reaches",
			Consequence: report.Takeover, beyond: true,
			Fix:        "run it with --boundary vm",
			References: []string{"random(4)"},
			observe:    func(p *prober) { p.read(bootID) },
			judge:      judgeKernel,
		},
		{
			ID: "kernel.log", Door: "the kernel's log", Expected: "syslog(2) is refused",
			Enables:     "reading addresses, devices and messages about other workloads",
			Consequence: report.Reads,
			Opens:       []string{"--cap-add CAP_SYSLOG", "--cap-add CAP_SYS_ADMIN", "--cap-add ALL", "--security-opt seccomp", "--userns host"},
			Fix:         "drop SYSLOG, keep the default seccomp profile, set kernel.dmesg_restrict=1 on the host",
			References:  []string{"syslog(2)", "CIS Docker 5.22"},
			observe: func(p *prober) {
				// Action 10 returns the size of the log and changes nothing.
				n, err := unix.Klogctl(10, nil)
				p.add("syslog(SYSLOG_ACTION_SIZE_BUFFER)", strconv.Itoa(n), err)
			},
			judge: refused,
		},
		{
			ID: "kernel.symbols", Door: "addresses of the kernel's symbols", Expected: "/proc/kallsyms shows zeros",
			Enables:     "aiming an attack on the kernel in spite of address randomization",
			Consequence: report.Depth,
			Opens:       []string{"--cap-add CAP_SYSLOG", "--cap-add ALL", "--userns host"},
			Fix:         "drop SYSLOG; set kernel.kptr_restrict=1 and kernel.perf_event_paranoid=2 on the host",
			References:  []string{"proc_kallsyms(5)"},
			observe: func(p *prober) {
				text, err := beginning("/proc/kallsyms")
				p.add(readCall("/proc/kallsyms"), symbol(text), err)
			},
			judge: func(v *view) outcome {
				e, ok := v.call(readCall("/proc/kallsyms"))
				switch address, _, _ := strings.Cut(e.Value, " "); {
				case !ok:
					return isUnclear("it was not read")
				case e.Errno != "":
					return refused(v)
				case strings.Trim(address, "0") == "":
					return isShut("zeros")
				default:
					return isOpen("addresses that are not zero")
				}
			},
		},
	}
}

// symbol is the first line of /proc/kallsyms with an address that is not zero, or else
// the first one: that of fixed_percpu_data, with which the list begins, is truly zero.
func symbol(text string) string {
	first, _, _ := strings.Cut(text, "\n")
	for line := range strings.Lines(text) {
		if address, _, ok := strings.Cut(line, " "); ok && strings.Trim(address, "0") != "" {
			return strings.TrimSpace(line)
		}
	}
	return strings.TrimSpace(first)
}

// confirmed is what a workload says if the host says the same, or else what the
// host says.
func confirmed(said, host outcome) outcome {
	if host.state != said.state {
		return host
	}
	said.observed += "; " + host.observed
	return said
}

func judgeKernel(v *view) outcome {
	e, ok := v.call(readBootID)
	switch {
	case !ok || e.Errno != "":
		return isUnclear("the boot ID cannot be read: " + e.Errno)
	case v.context.Host == nil || v.context.Host.BootID == "":
		if v.context.Declared == nil {
			return isUnclear("nobody told the host's boot ID: give --context, or compare it")
		}
		return isUnclear("the host's boot ID is not known")
	case v.context.Declared != nil && !v.context.Declared.OwnKernel:
		return isAbsent("this boundary shares the host's kernel by design")
	case e.Value != v.context.Host.BootID:
		own := isShut("a kernel of its own, booted as " + e.Value)
		if d := v.context.Declared; d != nil && d.Boundary == sandbox {
			return confirmed(own, sentry(v.context))
		}
		return own
	case v.context.Declared == nil:
		return isAbsent("nobody declared a kernel of its own")
	}
	return isOpen("the host's boot ID")
}
