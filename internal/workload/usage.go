package workload

import "time"

// Usage is what a workload has used so far, or uses now. What cannot be told is
// zero, and a limit that does not exist is 0.
type Usage struct {
	At          time.Time     `json:"at"`
	CPU         time.Duration `json:"cpu"`         // processor time, all processors together
	Memory      int64         `json:"memory"`      // bytes, without page cache that can be dropped
	MemoryLimit int64         `json:"memoryLimit"` // bytes
	Pids        int64         `json:"pids"`
	PidsLimit   int64         `json:"pidsLimit"`
	BlockRead   int64         `json:"blockRead"` // bytes
	BlockWrite  int64         `json:"blockWrite"`
	// NetReceived and NetSent are the bytes of all interfaces but loopback, as the
	// workload sees them.
	NetReceived int64 `json:"netReceived"`
	NetSent     int64 `json:"netSent"`
	// HostCPU and HostMemory are what the whole takes on the host where the rest
	// is a guest's word: the virtual machine with its VMM. Zero elsewhere, and in
	// a tenant's machine, which is not one workload's.
	HostCPU    time.Duration `json:"hostCPU,omitempty"`
	HostMemory int64         `json:"hostMemory,omitempty"`
}

// ProcessInfo is one line of `bulkhead top`. Its IDs are the workload's own.
type ProcessInfo struct {
	PID     int           `json:"pid"`
	PPID    int           `json:"ppid"`
	UID     uint32        `json:"uid"`
	State   string        `json:"state"` // a letter of proc_pid_stat(5)
	Started time.Time     `json:"started"`
	CPU     time.Duration `json:"cpu"`
	RSS     int64         `json:"rss"` // bytes
	TTY     string        `json:"tty,omitempty"`
	Command string        `json:"command"` // its arguments, separated by blanks
}

// PathStat describes a file of a workload.
type PathStat struct {
	Name       string    `json:"name"` // the last element of its path
	Size       int64     `json:"size"`
	Mode       uint32    `json:"mode"` // st_mode of stat(2)
	ModTime    time.Time `json:"modTime"`
	LinkTarget string    `json:"linkTarget,omitempty"`
}

// Change is one difference from the image.
type Change struct {
	Kind string `json:"kind"` // "A" added, "C" changed, "D" deleted
	Path string `json:"path"`
}
