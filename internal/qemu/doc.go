// Package qemu starts QEMU as the virtual machine monitor of one machine, and
// confines it.
//
//	supervisor                                   QEMU, user IDBase
//	  Machine                                      root: a tmpfs with its binary, libraries,
//	    ├─ QMP      socket pair ──────── fd 3        firmware, kernel and initramfs, read-only
//	    ├─ Agent    socket pair ──────── fd 4      no network, no /proc, no /dev, no capability
//	    ├─ Console  socket pair ──────── fd 5
//	    ├─ Stderr   pipe ──────────── fd 1, 2
//	    └─ disks    open files ─────── fd 6 …
//
// Command and confinement are data before anything happens: Command returns
// QEMU's arguments, Explain prints them with the launch program that confines
// it (package launch). Both have golden tests.
//
// What confines QEMU: a user and group of its own without any capability;
// no_new_privs; mount, pid, network, IPC, UTS and cgroup namespaces; a root
// that holds what it needs to run and nothing else, all of it read-only,
// without /proc and /dev; a seccomp filter that lists what it may call, over
// QEMU's own -sandbox; resource limits; and a parent-death signal. Disks and
// sockets come as open descriptors, so QEMU can name no file of the host. There
// is no user namespace: QEMU has no capability in any, cannot make one (the
// filter), and owners of files would only get one more translation.
//
// A machine that runs gives back what only its start needed, without QEMU's
// help: see Machine.Loaded and Machine.Trim.
//
// Software emulation (TCG) is not a security boundary, by QEMU's own statement:
// see NoBoundary. Which accelerator works is found by trying, see Accelerators.
//
// Everything that QEMU and the guest send back is hostile input: bounded, and
// made safe before it is shown.
package qemu
