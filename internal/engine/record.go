package engine

import (
	"slices"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Record is everything the engine knows about one workload.
type Record struct {
	Spec   workload.Spec   `json:"spec"`
	Status workload.Status `json:"status"`
	// PID is the first process's ID on the host while it runs, else 0.
	PID int `json:"pid,omitempty"`
	// SupervisorPID is the supervisor's ID while it runs, else 0.
	SupervisorPID int `json:"supervisorPid,omitempty"`
	// Started and Finished belong to the last run; zero if there was none.
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
	// Exit tells how the last run ended; nil before the first end and while
	// running.
	Exit *workload.Exit `json:"exit,omitempty"`
	// Restarts is how often the restart policy has brought the workload back since
	// it was started, Ends how the last few of those runs ended, oldest first.
	Restarts int             `json:"restarts,omitempty"`
	Ends     []workload.Exit `json:"ends,omitempty"`
	// Stopped is set when a command ended the last run.
	Stopped bool `json:"stopped,omitempty"`
	// NICs and Ports are what the workload has in networks while it runs.
	NICs  []workload.NIC  `json:"nics,omitempty"`
	Ports []workload.Port `json:"ports,omitempty"`
	// Health is what the health checks of the present or last run have shown, nil
	// without any.
	Health *workload.HealthState `json:"health,omitempty"`
	// Weakenings names each way in which the workload is less confined than by
	// default, with the flag that asked for it.
	Weakenings []workload.Weakening `json:"weakenings"`
	// Cgroup is the workload's path below each cgroup hierarchy.
	Cgroup string `json:"cgroup"`
	// IDBase is the first host ID of the workload's range, IDCount its length,
	// 0 when it has none.
	IDBase  uint32 `json:"idBase"`
	IDCount uint32 `json:"idCount"`
	// Layers are the host directories its root file system is made of, lowest
	// first, below Upper.
	Layers []string `json:"layers"`
	Upper  string   `json:"upper"`
	// Machine is what the workload's virtual machine is made from, nil without one.
	Machine *boundary.Machine `json:"machine,omitempty"`
	// Dir holds what is kept of the workload, RunDir what a reboot clears.
	Dir    string `json:"dir"`
	RunDir string `json:"runDir"`
	// Volumes are the host directories of the volumes that it has, by their names.
	Volumes map[string]string `json:"volumes,omitempty"`
	// LogPath is the newest log file.
	LogPath string `json:"logPath"`
	// LogError tells why output is missing from the log; empty if none is.
	LogError string `json:"logError,omitempty"`
}

func (e *Engine) newRecord(s *workload.Spec, st *state.State) *Record {
	r := &Record{
		Spec: *s, Status: st.Status, PID: st.PID, SupervisorPID: st.Supervisor,
		Started: st.Started, Finished: st.Finished, Exit: st.Exit,
		Restarts: st.Restarts, Ends: st.Ends, Stopped: st.Stopped,
		Weakenings: s.Weakenings(),
		Cgroup:     st.Cgroup, IDBase: st.IDBase, IDCount: st.IDCount,
		Layers: st.Layers, Upper: st.Upper, Machine: st.Machine,
		Dir: e.layout.Dir(s.ID), RunDir: e.layout.RunDir(s.ID),
		LogPath: e.layout.Log(s.ID), LogError: st.LogError, Volumes: e.volumeDirs(s),
	}
	if st.Live() {
		r.NICs, r.Ports = st.NICs, st.Ports
	}
	if s.Health.Checked() {
		r.Health, _ = e.layout.ReadHealth(s.ID) // there is none before the first run
	}
	return r
}

func sortRecords(r []*Record) {
	slices.SortFunc(r, func(a, b *Record) int { return a.Spec.Created.Compare(b.Spec.Created) })
}
