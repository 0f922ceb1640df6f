package probe

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

// Context is what has to be known from outside to judge what is seen inside. The
// part that the prober needs to try anything is Targets; the rest tells of the
// host and is kept from a workload that nobody trusts.
type Context struct {
	Format  int     `json:"format"`
	Targets Targets `json:"targets"`
	// Host and Declared are nil where nobody said.
	Host     *Host     `json:"host,omitempty"`
	Declared *Declared `json:"declared,omitempty"`
	// Outside is what the host saw of the workload; see SeenPids and the like.
	Outside []Observation `json:"outside,omitempty"`
}

const contextFormat = 2

// maxContext bounds a context in bytes.
const maxContext = 64 << 10

// Targets are what somebody put up outside for the prober to look for. It touches
// nothing else.
type Targets struct {
	// Nonce comes back with the observations.
	Nonce string `json:"nonce,omitempty"`
	// Files are the paths of files on the host, in directories of different file systems
	// where there are, and Token what each of them holds.
	Files []string `json:"files,omitempty"`
	Token string   `json:"token,omitempty"`
	// Abstract is the name of a listening abstract socket in the host's network
	// namespace, without the zero byte.
	Abstract string `json:"abstract,omitempty"`
	// Loopback are addresses with ports where somebody listens on the host's loopback
	// and says Token.
	Loopback []string `json:"loopback,omitempty"`
	// Shm is the ID of a System V shared memory segment in the host's IPC
	// namespace, and ShmKey its key.
	Shm    int    `json:"shm,omitempty"`
	ShmKey uint32 `json:"shmKey,omitempty"`
	// Addresses with ports are those that the user named: they must be unreachable.
	Addresses []string `json:"addresses,omitempty"`
	// Pids and Memory are limits to reach where the workload cannot read them, and
	// 0 where they are not to be reached so.
	Pids   int64 `json:"pids,omitempty"`
	Memory int64 `json:"memory,omitempty"`
}

// Host is what the host's kernel says about itself.
type Host struct {
	BootID  string `json:"bootID"`
	Release string `json:"release"`
	// Namespaces are inode numbers by the names in /proc/self/ns.
	Namespaces map[string]uint64 `json:"namespaces,omitempty"`
	// Memory is MemTotal of /proc/meminfo in KiB, Booted the time of booting in
	// seconds since 1970.
	Memory uint64 `json:"memory,omitempty"`
	Booted int64  `json:"booted,omitempty"`
}

// Declared is what a workload was asked to be.
type Declared struct {
	Boundary string `json:"boundary"`
	// OwnKernel tells that the boundary promises a kernel that is not the host's.
	OwnKernel bool `json:"ownKernel,omitempty"`
	// Options are those that weaken it, as workload.Weakening.Flag has them.
	Options []string `json:"options,omitempty"`
	// Binds are the directories and files of the host that were asked for inside.
	Binds []Bind `json:"binds,omitempty"`
	// Passes are the numbers of system calls that the default filter lets pass to a
	// workload with its capabilities, as ranges; "" if nobody knows.
	Passes string `json:"passes,omitempty"`
	// ReadOnlyRoot and NoNetwork were asked for.
	ReadOnlyRoot bool `json:"readOnlyRoot,omitempty"`
	NoNetwork    bool `json:"noNetwork,omitempty"`
	Terminal     bool `json:"terminal,omitempty"`
	// The limits; 0 where none was asked for.
	Memory int64   `json:"memory,omitempty"` // bytes
	Swap   int64   `json:"swap,omitempty"`   // bytes of memory and swap together; negative for any amount
	Pids   int64   `json:"pids,omitempty"`
	CPUs   float64 `json:"cpus,omitempty"`
	Files  uint64  `json:"files,omitempty"` // RLIMIT_NOFILE
	Shm    int64   `json:"shm,omitempty"`   // bytes of /dev/shm
	// Recheck is the command that looks again.
	Recheck string `json:"recheck,omitempty"`
}

// Bind is a path of the host, and where it is inside.
type Bind struct {
	Source string `json:"source"`
	Target string `json:"target"`
	// System is which of the directories that a host runs on the source is, "" for none
	// of them.
	System string `json:"system,omitempty"`
}

// Encode returns one line of JSON.
func (c *Context) Encode() ([]byte, error) { return line(c) }

// ParseContext reads a context that Encode wrote, however it is indented.
func ParseContext(b []byte) (*Context, error) {
	if len(b) > maxContext {
		return nil, fmt.Errorf("%w: a context of more than %d bytes", report.ErrMalformed, maxContext)
	}
	var c Context
	if err := report.Strict(b, &c); err != nil {
		return nil, err
	}
	if c.Format != contextFormat {
		return nil, fmt.Errorf("%w: a context of format %d, this program knows %d", report.ErrMalformed, c.Format, contextFormat)
	}
	if err := checkOutside(c.Outside); err != nil {
		return nil, err
	}
	return &c, nil
}

// NewContext returns one without targets.
func NewContext(h *Host, d *Declared) *Context {
	return &Context{Format: contextFormat, Host: h, Declared: d}
}

// namespaceNames are those of /proc/self/ns.
var namespaceNames = []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"}

// initialNamespaces are the inode numbers of the kernel's first namespaces, include/uapi/linux/nsfs.h.
// Those of net and mnt are fixed since Linux 6.18; before, mnt's was the first that
// was handed out.
var initialNamespaces = map[string][]uint64{
	"ipc": {0xefffffff}, "uts": {0xeffffffe}, "user": {0xeffffffd}, "pid": {0xeffffffc}, "cgroup": {0xeffffffb},
	"net": {0xeffffff9}, "mnt": {0xeffffff8, 0xf0000000, 0xf0000001},
}

// LocalHost looks at this machine.
func LocalHost() (*Host, error) {
	h := &Host{Namespaces: map[string]uint64{}}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	h.BootID = strings.TrimSpace(string(id))
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, os.NewSyscallError("uname", err)
	}
	h.Release = unix.ByteSliceToString(u.Release[:])
	for _, name := range namespaceNames {
		link, err := os.Readlink("/proc/self/ns/" + name)
		if err != nil {
			return nil, err
		}
		if n, ok := inode(link); ok {
			h.Namespaces[name] = n
		}
	}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		h.Memory, _ = strconv.ParseUint(field(string(b), "MemTotal:"), 10, 64)
	}
	if b, err := os.ReadFile("/proc/stat"); err == nil {
		h.Booted, _ = strconv.ParseInt(field(string(b), "btime"), 10, 64)
	}
	return h, nil
}

// inode is the number in "pid:[4026531836]".
func inode(link string) (uint64, bool) {
	_, rest, ok := strings.Cut(link, ":[")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(rest, "]"), 10, 64)
	return n, err == nil
}

// field is the first word behind name at the beginning of a line.
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			if words := strings.Fields(rest); len(words) > 0 {
				return words[0]
			}
		}
	}
	return ""
}
