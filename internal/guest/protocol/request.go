package protocol

import (
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Op is what a Request asks for.
type Op string

// The operations.
const (
	OpCreate     Op = "create"
	OpPrepare    Op = "prepare" // makes a workload for nobody, see Adopt; see Session.Idle
	OpAdopt      Op = "adopt"   // what OpPrepare made is a workload; the rest is as with OpCreate
	OpExec       Op = "exec"
	OpStart      Op = "start"
	OpSignal     Op = "signal"
	OpPause      Op = "pause"
	OpResume     Op = "resume"
	OpProcesses  Op = "processes"
	OpDescribe   Op = "describe"
	OpMeasure    Op = "measure"
	OpUpdate     Op = "update"
	OpRewire     Op = "rewire"
	OpDelete     Op = "delete" // the Reply comes when the workload is gone; one that never was is gone
	OpRemoveData Op = "remove-data"
	OpKeepData   Op = "keep-data" // removes what Data made for all but Keep
	OpVolume     Op = "volume"
	OpHold       Op = "hold" // mounts a volume that a later OpVolume serves, in this guest or in a clone of it
	// The workload's files: see Files.
	OpReadFiles  Op = "read-files"
	OpWriteFiles Op = "write-files"
	OpStatPath   Op = "stat-path"
	OpChanges    Op = "changes"
	OpStatus     Op = "status"
	OpClock      Op = "clock"
	OpSeed       Op = "seed"
	OpPowerOff   Op = "power-off"
)

// The size of a seed, in bytes: what the kernel's generator is keyed with, and more
// than anybody needs.
const (
	MinSeed = 32
	MaxSeed = 512
)

// Request is the first message of a stream.
type Request struct {
	Op Op `json:"op"`
	// ID is the workload's, for all that concerns one but OpCreate.
	ID     workload.ID `json:"id,omitempty"`
	Create *Create     `json:"create,omitempty"` // OpPrepare's, too
	Adopt  *Adopt      `json:"adopt,omitempty"`
	Exec   *Exec       `json:"exec,omitempty"`
	// Process and Signal are OpSignal's. Process is 0 for the first process, or
	// what the Reply to OpExec said.
	// With Group the signal goes to all of the group that the process leads.
	Process uint64         `json:"process,omitempty"`
	Signal  syscall.Signal `json:"signal,omitempty"`
	Group   bool           `json:"group,omitempty"`
	Files   *Files         `json:"files,omitempty"`
	// Resources are OpUpdate's.
	Resources *workload.Resources `json:"resources,omitempty"`
	Rewire    *Rewire             `json:"rewire,omitempty"`
	Volume    string              `json:"volume,omitempty"` // OpVolume, OpHold: a name that the host chose
	File      bool                `json:"file,omitempty"`   // OpVolume, OpHold: it is one file
	Keep      []workload.ID       `json:"keep,omitempty"`   // OpKeepData
	// Time is what OpClock sets the clock to, Shift what it moves it by, in
	// nanoseconds; without either it only says what time it is.
	Time  time.Time     `json:"time,omitzero"`
	Shift time.Duration `json:"shift,omitempty"`
	Seed  []byte        `json:"seed,omitempty"` // OpSeed: MinSeed to MaxSeed random bytes
}

// Streams says which standard streams of a process are carried; the others are
// /dev/null. A process with a terminal has none of them.
type Streams struct {
	In  bool `json:"in,omitempty"`
	Out bool `json:"out,omitempty"`
	Err bool `json:"err,omitempty"`
	// Joined, with Out and without Err, makes standard error the same pipe as
	// standard output, so that what is written to both keeps its order.
	Joined bool `json:"joined,omitempty"`
}

// Create asks for a workload, up to, not including, the first instruction of
// its first process.
type Create struct {
	Spec workload.Spec `json:"spec"`
	// Image is the serial of the disk that holds the root file system.
	Image string `json:"image"`
	// IDBase is the first guest ID of the workload's range, IDCount its length.
	IDBase  uint32 `json:"idBase"`
	IDCount uint32 `json:"idCount"`
	// Files are contents by absolute path inside (resolv.conf, hosts, hostname).
	Files map[string][]byte `json:"files,omitempty"`
	// Volumes names, for each bind mount of Spec by its index there, the volume
	// that it shows.
	Volumes map[int]string `json:"volumes,omitempty"`
	// NICs become the network interfaces of the workload, beside loopback.
	NICs    []NIC   `json:"nics,omitempty"`
	Streams Streams `json:"streams"`
	// Alone says that the guest's data disk is this workload's alone: what it writes
	// is found there whatever its ID is.
	Alone bool `json:"alone,omitempty"`
	// Trace asks for the phases of making it, in the Reply.
	Trace bool `json:"trace,omitempty"`
}

// Nobody is the ID of a workload that OpPrepare makes; Rehearsal is that of another,
// which runs a program of the host's choice and goes, before anybody adopts the first.
const (
	Nobody    workload.ID = "0000000000000000000000000000000000000000000000000000000000000000"
	Rehearsal workload.ID = "1000000000000000000000000000000000000000000000000000000000000000"
)

// Adopt says whose the workload is that OpPrepare made: all of a Create that may
// differ between workloads that are otherwise alike.
type Adopt struct {
	// Of is Nobody or Rehearsal: what is adopted.
	Of       workload.ID `json:"of"`
	ID       workload.ID `json:"id"`
	Hostname string      `json:"hostname,omitempty"`
	Args     []string    `json:"args"`
	Env      []string    `json:"env,omitempty"`
	Rows     uint16      `json:"rows,omitempty"` // of its terminal, 0 for the default
	Cols     uint16      `json:"cols,omitempty"`
	// Files are the contents of the files that it was made with, all of them.
	Files map[string][]byte `json:"files,omitempty"`
	NICs  []NIC             `json:"nics,omitempty"`
	Trace bool              `json:"trace,omitempty"`
}

// NIC is a network device of the guest that becomes an interface of a workload.
// Network and Link of the interface mean nothing in a guest.
type NIC struct {
	workload.NIC
	// Device is the MAC address that the device has by itself.
	Device string `json:"device"`
}

// Rewire changes the network interfaces of a workload that runs; see
// boundary.Rewiring.
type Rewire struct {
	Add []NIC `json:"add,omitempty"`
	// Remove are interfaces whose devices the guest gets back, known by Device.
	Remove []NIC `json:"remove,omitempty"`
	// Route are known by Device, too; their Gateways are the default routes.
	Route []NIC `json:"route,omitempty"`
	// Files are what becomes of Create.Files.
	Files map[string]workload.FileEdit `json:"files,omitempty"`
}

// Exec asks for another process.
type Exec struct {
	Process workload.Process `json:"process"`
	Streams Streams          `json:"streams"`
}

// Files says what of a workload's files is meant; see boundary.Files.
type Files struct {
	Path string `json:"path"`
	// Follow and OneFileSystem are OpReadFiles', Owners and NoOverwriteDir
	// OpWriteFiles'.
	Follow         bool `json:"follow,omitempty"`
	OneFileSystem  bool `json:"oneFileSystem,omitempty"`
	Owners         bool `json:"owners,omitempty"`
	NoOverwriteDir bool `json:"noOverwriteDir,omitempty"`
}

// Reply answers a Request.
type Reply struct {
	Error     *Error  `json:"error,omitempty"`
	Process   uint64  `json:"process,omitempty"`   // OpExec
	Processes []int   `json:"processes,omitempty"` // OpProcesses: IDs in the guest
	Status    *Status `json:"status,omitempty"`    // OpStatus
	// Described is OpDescribe's, Usage OpMeasure's.
	Described Described       `json:"described,omitempty"`
	Usage     *workload.Usage `json:"usage,omitempty"`
	Time      time.Time       `json:"time,omitzero"` // OpClock: the guest's clock, after it
	// Path is OpStatPath's.
	Path *workload.PathStat `json:"path,omitempty"`
	// Phases are OpCreate's, where it asked for them.
	Phases Phases `json:"phases,omitempty"`
}

// Status tells about a guest.
type Status struct {
	Time time.Time `json:"time"` // the guest's clock
	// MemoryTotal and MemoryAvailable are the guest kernel's, bytes; see
	// proc_meminfo(5).
	MemoryTotal     int64      `json:"memoryTotal"`
	MemoryAvailable int64      `json:"memoryAvailable"`
	Workloads       []Workload `json:"workloads,omitempty"`
	// Images are the serials of the disks that are mounted.
	Images []string `json:"images,omitempty"`
	// Devices are the network devices that workloads have, by their own MAC
	// addresses.
	Devices []string `json:"devices,omitempty"`
}

// Workload is one workload of a guest.
type Workload struct {
	ID     workload.ID     `json:"id"`
	Status workload.Status `json:"status"`
}
