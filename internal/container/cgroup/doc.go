// Package cgroup makes, joins, watches and removes the control groups of a
// workload, on cgroup v1, on hybrid machines and on pure v2.
//
// A Manager stands for one path, such as "/bulkhead/<id>", below every
// hierarchy that the machine has mounted:
//
//	mode     limits live in              kill, freeze, "is it empty" use
//	v1       one directory per hierarchy signals, the freezer hierarchy
//	hybrid   the v1 directories          a v2 directory, made beside them
//	v2       one directory               the same directory
//
// The life of a Manager is
//
//	New ── Create ── Join (once per process) ── Kill ── Destroy
//	Load ──────────┘   Set, Stats, Freeze, Thaw, Pids in between
//
// New only computes and checks. Create makes directories and puts limits and
// device rules in force; when it fails nothing is left behind. Processes are
// never moved from outside through cgroup.procs, which stalls for about 13 ms
// on v1: Join hands out descriptors, a child writes "0" to the v1 ones and is
// born into the v2 one with clone3(CLONE_INTO_CGROUP).
//
// A limit is in force or New or Create fails with a *MissingError that names
// the limit and what is missing. What is written where is decided by
// limitsFor, a pure function; the writing itself and most statistics are the
// work of github.com/opencontainers/cgroups. Its systemd and devices
// sub-packages are not imported: the first needs D-Bus, the second pulls an
// eBPF assembler into every start and lets device rules lapse in a user
// namespace.
//
// A workload with a supervisor uses two Managers, for the siblings
// "/bulkhead/<id>/workload" and "/bulkhead/<id>/supervisor": v2 does not
// allow processes in a cgroup that distributes controllers to children, so
// "/bulkhead/<id>" itself stays without. Load("/bulkhead/<id>") then kills and
// destroys both.
package cgroup
