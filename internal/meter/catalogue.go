package meter

import "golang.org/x/sys/unix"

// features are all, by what they belong to. A name is the field's term; whoever
// compares may show it.
var features = []feature{
	// Calls of newer kernels.
	{"clone3", "clone3", tryClone3},
	{"openat2", "openat2", tryOpenat2},
	{"statx", "statx", tryStatx},
	{"close_range", "close_range", tryCloseRange},
	{"copy_file_range", "copy_file_range", tryCopyFileRange},
	{"epoll_pwait2", "epoll_pwait2", tryEpollPwait2},
	{"pidfd_open", "pidfd_open", tryPidfdOpen},
	{"pidfd_getfd", "pidfd_getfd", tryPidfdGetfd},
	{"io_uring", "io_uring_enter(IORING_OP_NOP)", tryIoUring},
	{"userfaultfd", "ioctl(UFFDIO_API)", tryUserfaultfd},

	// Memory.
	{"memfd with seals", "fcntl(F_ADD_SEALS)", tryMemfd},
	{"memfd_secret", "memfd_secret", tryMemfdSecret},
	{"huge pages", "mmap(MAP_HUGETLB)", tryHugePages},
	{"process_vm_readv", "process_vm_readv", tryProcessVMReadv},

	// Between processes.
	{"AF_UNIX with descriptors", "sendmsg(SCM_RIGHTS)", tryUnix},
	{"System V shared memory", "shmat", trySysVShm},
	{"POSIX message queues", "mq_timedreceive", tryMessageQueue},
	{"ptrace", "ptrace(PTRACE_GETREGSET)", tryPtrace},
	{"inotify", "inotify_add_watch", tryInotify},
	{"fanotify", "fanotify_mark", tryFanotify},
	{"keyrings", "add_key", tryKeyrings},

	// Restricting oneself.
	{"seccomp filters", "prctl(PR_SET_SECCOMP)", trySeccomp},
	{"landlock", "landlock_restrict_self", tryLandlock},
	{"user namespaces", "clone(CLONE_NEWUSER)", tryUserNamespace},
	{"chroot", "chroot", tryChroot},
	{"setuid to another user", "setresuid", trySetuid},

	// Containers in it.
	{"mount", "mount(tmpfs)", tryMount},
	{"mount in a user namespace", "mount(tmpfs)", nested(unix.CLONE_NEWNS, mountTmpfs)},
	{"overlayfs in a user namespace", "mount(overlay)", nested(unix.CLONE_NEWNS, mountOverlay)},
	{"nested containers", "mount(proc)", nested(unix.CLONE_NEWNS|unix.CLONE_NEWPID, mountProc)},
	{"cgroups of one's own", "mkdir(cgroup)", tryCgroup},
	{"device nodes", "mknod", tryMknod},

	// Networks.
	{"AF_PACKET", "socket(AF_PACKET)", socket(unix.AF_PACKET, unix.SOCK_RAW, "socket(AF_PACKET)")},
	{"raw ICMP", "sendto(127.0.0.1)", ping(unix.SOCK_RAW)},
	{"unprivileged ICMP", "sendto(127.0.0.1)", ping(unix.SOCK_DGRAM)},
	{"AF_NETLINK route", "sendto(RTM_GETLINK)", tryRoutes},
	{"nftables", "sendto(NFT_MSG_GETTABLE)", tryNftables},
	{"TUN/TAP", "ioctl(TUNSETIFF)", tryTun},
	{"AF_VSOCK", "socket(AF_VSOCK)", socket(unix.AF_VSOCK, unix.SOCK_STREAM, "socket(AF_VSOCK)")},
	{"AF_ALG", "bind(AF_ALG)", tryAlg},

	// Devices.
	{"FUSE", "open(/dev/fuse)", device("/dev/fuse")},
	{"loop devices", "open(/dev/loop-control)", device("/dev/loop-control")},
	{"KVM", "ioctl(KVM_GET_API_VERSION)", tryKVM},

	// The machine.
	{"bpf", "bpf(BPF_MAP_CREATE)", tryBPF},
	{"perf events", "perf_event_open", tryPerf},
	{"kernel modules", "init_module", tryModule},
	{"setting the clock", "settimeofday", tryClock},
	{"setting the host name", "sethostname", tryHostname},
	{"io priorities", "ioprio_set", tryIoPriority},
	{"real-time scheduling", "sched_setattr(SCHED_FIFO)", tryRealTime},
}
