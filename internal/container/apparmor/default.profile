# The AppArmor profile of bulkhead's containers.
#
# It is the second line behind capabilities, seccomp, read-only mounts and the
# user namespace, so it grants what ordinary programs do and takes away what
# those lines are there to prevent. It includes no other file: hosts differ in
# what lies below /etc/apparmor.d. Paths are those that the process sees.
#
# A change of this text needs a new name, see DefaultName: the old profile stays
# loaded until the next boot, and running containers keep it.

profile bulkhead-default-1 flags=(attach_disconnected,mediate_deleted) {
  file,
  network,
  capability,

  # Processes of containers are signalled by the host and by each other, and
  # may trace each other, never a process of the host.
  signal (receive) peer=unconfined,
  signal (send,receive) peer=bulkhead-default-1,
  ptrace (trace,read,tracedby,readby) peer=bulkhead-default-1,

  # The mount tree is complete before the program starts.
  deny mount,
  deny remount,
  deny umount,
  deny pivot_root,

  # /proc: only the directories of processes can be written, below
  # /proc/sys only the limits of System V shared memory, which belong to the
  # container's own IPC namespace.
  deny /proc/* wkl,
  deny /proc/[^1-9st]*/** wkl,
  deny /proc/s[^ey]*/** wkl,
  deny /proc/t[^h]*/** wkl,
  deny /proc/sys/[^k]** wkl,
  deny /proc/sys/kernel/[^s]** wkl,
  deny /proc/sys/kernel/s[^h]** wkl,
  deny /proc/{sysrq-trigger,kcore,kmem,mem} rwklx,

  # /sys: only the container's own control groups can be written.
  deny /sys/[^f]** wkl,
  deny /sys/f[^s]** wkl,
  deny /sys/fs/[^c]** wkl,
  deny /sys/fs/c[^g]** wkl,
  deny /sys/{firmware,kernel/security,kernel/debug,kernel/tracing,devices/virtual/powercap}/** rwklx,
}
