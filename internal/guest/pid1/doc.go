// Package pid1 makes a booted kernel into a guest that can hold workloads.
//
// The guest has two processes of ours, both of the program bulkhead-agent:
//
//	kernel ──▶ init, PID 1: Init
//	             │ mounts, modules, switch of the root, cgroups, loopback
//	             │ fork + execve /proc/self/exe
//	             ├──────▶ agent: Run
//	             │          │ finds the port, then for each time the host is there:
//	             │          │   a session of the protocol over the port
//	             │          └──▶ workloads, made by the container code
//	             │ reaps orphans, passes SIGTERM and SIGINT on
//	             ▼ the agent has ended
//	           kills what is left, syncs, unmounts the data disk, restarts the
//	           machine, which ends the VMM
//
// They are two because the kernel panics when PID 1 ends, and a Go program can
// always end: by a panic in any goroutine, or by an error of the runtime that
// nothing can recover. So what serves the host is not PID 1, and PID 1 does
// almost nothing. It also settles who reaps: the agent waits for the processes
// that it made itself, all orphans go to PID 1, and neither can take the exit
// status of a process that the other waits for.
//
// A whole system has its own first process; handover.go says how PID 1 becomes
// that, while the agent goes on.
//
// The initramfs is left before any workload: pivot_root(2) does not work on it,
// and its memory can be freed.
package pid1
