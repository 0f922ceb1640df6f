package launch

import "golang.org/x/sys/unix"

// Call is a system call by its number on this architecture.
type Call uintptr

// The system calls that programs are made of, by their names in the manual.
const (
	Bpf              Call = unix.SYS_BPF
	Capset           Call = unix.SYS_CAPSET
	Chdir            Call = unix.SYS_CHDIR
	Clone            Call = unix.SYS_CLONE
	Clone3           Call = unix.SYS_CLONE3
	Close            Call = unix.SYS_CLOSE
	CloseRange       Call = unix.SYS_CLOSE_RANGE
	Dup3             Call = unix.SYS_DUP3
	Execve           Call = unix.SYS_EXECVE
	Execveat         Call = unix.SYS_EXECVEAT
	ExitGroup        Call = unix.SYS_EXIT_GROUP
	Fchdir           Call = unix.SYS_FCHDIR
	Fchmod           Call = unix.SYS_FCHMOD
	Fchmodat         Call = unix.SYS_FCHMODAT
	Fchown           Call = unix.SYS_FCHOWN
	Fchownat         Call = unix.SYS_FCHOWNAT
	Fcntl            Call = unix.SYS_FCNTL
	Fsconfig         Call = unix.SYS_FSCONFIG
	Fsmount          Call = unix.SYS_FSMOUNT
	Fsopen           Call = unix.SYS_FSOPEN
	Getcwd           Call = unix.SYS_GETCWD
	Ioctl            Call = unix.SYS_IOCTL
	Keyctl           Call = unix.SYS_KEYCTL
	Kill             Call = unix.SYS_KILL
	Mkdirat          Call = unix.SYS_MKDIRAT
	Mknodat          Call = unix.SYS_MKNODAT
	Mmap             Call = unix.SYS_MMAP
	Mount            Call = unix.SYS_MOUNT
	MountSetattr     Call = unix.SYS_MOUNT_SETATTR
	MoveMount        Call = unix.SYS_MOVE_MOUNT
	OpenTree         Call = unix.SYS_OPEN_TREE
	Openat           Call = unix.SYS_OPENAT
	Openat2          Call = unix.SYS_OPENAT2
	Personality      Call = unix.SYS_PERSONALITY
	PidfdGetfd       Call = unix.SYS_PIDFD_GETFD
	PidfdOpen        Call = unix.SYS_PIDFD_OPEN
	Pipe2            Call = unix.SYS_PIPE2
	PivotRoot        Call = unix.SYS_PIVOT_ROOT
	Prctl            Call = unix.SYS_PRCTL
	Prlimit64        Call = unix.SYS_PRLIMIT64
	Read             Call = unix.SYS_READ
	SchedSetaffinity Call = unix.SYS_SCHED_SETAFFINITY
	SchedSetattr     Call = unix.SYS_SCHED_SETATTR
	Seccomp          Call = unix.SYS_SECCOMP
	IoprioSet        Call = unix.SYS_IOPRIO_SET
	SetMempolicy     Call = unix.SYS_SET_MEMPOLICY
	Setdomainname    Call = unix.SYS_SETDOMAINNAME
	Setgroups        Call = unix.SYS_SETGROUPS
	RtSigaction      Call = unix.SYS_RT_SIGACTION
	RtSigprocmask    Call = unix.SYS_RT_SIGPROCMASK
	Sethostname      Call = unix.SYS_SETHOSTNAME
	Setns            Call = unix.SYS_SETNS
	Setresgid        Call = unix.SYS_SETRESGID
	Setresuid        Call = unix.SYS_SETRESUID
	Setsid           Call = unix.SYS_SETSID
	Socket           Call = unix.SYS_SOCKET
	Symlinkat        Call = unix.SYS_SYMLINKAT
	Umask            Call = unix.SYS_UMASK
	Umount2          Call = unix.SYS_UMOUNT2
	Unshare          Call = unix.SYS_UNSHARE
	Wait4            Call = unix.SYS_WAIT4
	Write            Call = unix.SYS_WRITE
)

// String returns the name in section 2 of the manual.
func (c Call) String() string {
	switch c {
	case Bpf:
		return "bpf"
	case Capset:
		return "capset"
	case Chdir:
		return "chdir"
	case Clone:
		return "clone"
	case Clone3:
		return "clone3"
	case Close:
		return "close"
	case CloseRange:
		return "close_range"
	case Dup3:
		return "dup3"
	case Execve:
		return "execve"
	case Execveat:
		return "execveat"
	case ExitGroup:
		return "exit_group"
	case Fchdir:
		return "fchdir"
	case Fchmod:
		return "fchmod"
	case Fchmodat:
		return "fchmodat"
	case Fchown:
		return "fchown"
	case Fchownat:
		return "fchownat"
	case Fcntl:
		return "fcntl"
	case Fsconfig:
		return "fsconfig"
	case Fsmount:
		return "fsmount"
	case Fsopen:
		return "fsopen"
	case Getcwd:
		return "getcwd"
	case Ioctl:
		return "ioctl"
	case Keyctl:
		return "keyctl"
	case Kill:
		return "kill"
	case Mkdirat:
		return "mkdirat"
	case Mknodat:
		return "mknodat"
	case Mmap:
		return "mmap"
	case Mount:
		return "mount"
	case MountSetattr:
		return "mount_setattr"
	case MoveMount:
		return "move_mount"
	case OpenTree:
		return "open_tree"
	case Openat:
		return "openat"
	case Openat2:
		return "openat2"
	case Personality:
		return "personality"
	case PidfdGetfd:
		return "pidfd_getfd"
	case PidfdOpen:
		return "pidfd_open"
	case Pipe2:
		return "pipe2"
	case PivotRoot:
		return "pivot_root"
	case Prctl:
		return "prctl"
	case Prlimit64:
		return "prlimit64"
	case Read:
		return "read"
	case SchedSetaffinity:
		return "sched_setaffinity"
	case SchedSetattr:
		return "sched_setattr"
	case Seccomp:
		return "seccomp"
	case IoprioSet:
		return "ioprio_set"
	case SetMempolicy:
		return "set_mempolicy"
	case Setdomainname:
		return "setdomainname"
	case Setgroups:
		return "setgroups"
	case RtSigaction:
		return "rt_sigaction"
	case RtSigprocmask:
		return "rt_sigprocmask"
	case Sethostname:
		return "sethostname"
	case Setns:
		return "setns"
	case Setresgid:
		return "setresgid"
	case Setresuid:
		return "setresuid"
	case Setsid:
		return "setsid"
	case Socket:
		return "socket"
	case Symlinkat:
		return "symlinkat"
	case Umask:
		return "umask"
	case Umount2:
		return "umount2"
	case Unshare:
		return "unshare"
	case Wait4:
		return "wait4"
	case Write:
		return "write"
	}
	return "syscall?"
}
