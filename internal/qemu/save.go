package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
)

// A machine that has booted can be saved, and others go on from there without
// booting: clones. The guest's memory is a file; what else there is of a
// machine, its processors and devices, is the state, some hundred kilobytes.
//
//	maker                                    clone
//	  RAM, shared: the guest writes to it      RAM, private: what it writes is its own
//	  boots … Save ─────── state ───────────▶  State: goes on
//
// Disks and network devices are a part of the state, what is behind them is not:
// the maker has empty slots, each clone its own files and interfaces.
//
// QEMU 7.2 opens the file with the memory for writing, whether it will write or
// not, and a clone may be in anybody's hands. So it opens nothing: see opener.

// RAM is a file that holds a guest's memory.
type RAM struct {
	// File has Config.Memory bytes. It stays the caller's. What is not Shared needs
	// to be open for reading only, and QEMU gets no other descriptor of it.
	File *os.File
	// Shared says that the guest's memory is the file, for Save. Otherwise the
	// guest begins with what is in the file, and what it writes stays its own.
	Shared bool
}

const (
	memoryID   = "ram"
	pathMemory = "/ram" // there is no such file: see opener
	stateWhy   = "what was saved of the machine"
)

func (c *Config) memoryObject() string {
	share := "off"
	if c.RAM.Shared {
		share = "on"
	}
	return fmt.Sprintf("memory-backend-file,id=%s,size=%dM,mem-path=%s,share=%s", memoryID, c.Memory/mib, pathMemory, share)
}

// stateFD is QEMU's descriptor of the state: the last.
func (c *Config) stateFD() int {
	fd := fdDisks
	for _, d := range c.Disks {
		if d.File != "" {
			fd++
		}
	}
	for _, n := range c.NICs {
		if n.Kind != Slot {
			fd++
		}
	}
	return fd
}

// ignoreShared has QEMU leave out of the state what is in a shared file, or look
// for it there (qapi/migration.json, x-ignore-shared).
func (m *Machine) ignoreShared(ctx context.Context) error {
	_, err := m.qmp.do(ctx, "migrate-set-capabilities", map[string]any{
		"capabilities": []any{map[string]any{"capability": "x-ignore-shared", "state": true}},
	})
	return err
}

// restore lets the machine go on from its state. QEMU ends when it cannot.
func (m *Machine) restore(ctx context.Context) error {
	defer trace.Step(ctx, "QEMU goes on from the template").Of("qemu").End()
	if err := m.ignoreShared(ctx); err != nil {
		return err
	}
	// Not a word on the network in the name of the machine that was saved.
	if _, err := m.qmp.do(ctx, "migrate-set-parameters", map[string]any{"announce-rounds": 0}); err != nil {
		return err
	}
	_, err := m.qmp.do(ctx, "migrate-incoming", map[string]any{"uri": fmt.Sprintf("fd:%d", m.cfg.stateFD())})
	return err
}

// saveLimit bounds Save, which takes some milliseconds.
const saveLimit = 30 * time.Second

// saving is how often QEMU is asked whether it has saved: it tells nobody by
// itself without an option that all machines would have to have.
const saving = 2 * time.Millisecond

// Save writes the machine's state to a file, which stays the caller's, and stops
// the guest at that moment, for good. Its memory is in Config.RAM, which must be
// shared.
func (m *Machine) Save(ctx context.Context, state *os.File) error {
	if m.cfg.RAM == nil || !m.cfg.RAM.Shared {
		return errors.New("save a machine: its memory is not in a shared file")
	}
	ctx, cancel := context.WithTimeout(ctx, saveLimit)
	defer cancel()
	if err := m.ignoreShared(ctx); err != nil {
		return err
	}
	if _, err := m.qmp.do(ctx, "getfd", map[string]any{"fdname": "state"}, state); err != nil {
		return err
	}
	if _, err := m.qmp.do(ctx, "migrate", map[string]any{"uri": "fd:state"}); err != nil {
		return err
	}
	for {
		b, err := m.qmp.do(ctx, "query-migrate", nil)
		if err != nil {
			return err
		}
		var s struct {
			Status string
			Error  string `json:"error-desc"`
		}
		if err := json.Unmarshal(b, &s); err != nil {
			return fmt.Errorf("QEMU: query-migrate: %w", err)
		}
		switch s.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return fmt.Errorf("QEMU: the machine could not be saved: %s", short(Printable([]byte(s.Error))))
		}
		select {
		case <-time.After(saving):
		case <-ctx.Done():
			return fmt.Errorf("QEMU: save the machine: %w", ctx.Err())
		}
	}
}
