package qemu

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// ports is a QEMU that knows of what its network devices are connected to, and does
// not answer one command.
type ports struct {
	have   map[string]bool
	silent string
	nth    int // which of these commands, from 1
}

func (p *ports) do(line string, w *os.File) {
	var c struct {
		Execute   string
		Arguments struct{ ID string }
		ID        string
	}
	refusal := ""
	if err := json.Unmarshal([]byte(line), &c); err != nil {
		refusal = err.Error()
	}
	switch id := c.Arguments.ID; c.Execute {
	case "netdev_add":
		if p.have[id] {
			refusal = "Duplicate ID '" + id + "' for netdev"
		}
		p.have[id] = true
	case "netdev_del":
		if !p.have[id] {
			refusal = "Device '" + id + "' not found"
		}
		delete(p.have, id)
	}
	if c.Execute == p.silent {
		p.nth--
	}
	switch {
	case c.Execute == p.silent && p.nth == 0:
	case refusal != "":
		fmt.Fprintf(w, `{"error":{"class":"GenericError","desc":%q},"id":%q}`+"\n", refusal, c.ID)
	default:
		fmt.Fprintf(w, `{"return":{},"id":%q}`+"\n", c.ID)
	}
}

// TestPlugWithoutAnswer: where QEMU once does not say in time that it has done what it
// was told, the network device is connected the next time.
func TestPlugWithoutAnswer(t *testing.T) {
	for _, c := range []ports{{silent: "netdev_add", nth: 1}, {silent: "netdev_add", nth: 2}, {silent: "set_link", nth: 1}} {
		t.Run(fmt.Sprint(c.silent, " ", c.nth), func(t *testing.T) {
			c.have = map[string]bool{}
			m := &Machine{cfg: Config{NICs: []NIC{{Kind: Slot}}}, qmp: hostileQMP(t, c.do), plugged: map[int]bool{}}
			short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if err := m.plug(short, 0, Tap, os.Stdin); err == nil || !strings.Contains(err.Error(), "deadline") {
				t.Fatalf("without an answer: %v", err)
			}
			if err := m.EjectNIC(t.Context(), 0); err != nil {
				t.Error(err)
			}
			if len(c.have) != 0 {
				t.Errorf("after it was emptied it has %v", c.have)
			}
			if err := m.InsertNIC(t.Context(), 0, Tap, os.Stdin); err != nil {
				t.Error(err)
			}
		})
	}
}

// nodes is a QEMU that knows of block nodes, and of a device that has one. It
// does what it is told, and does not answer one command.
type nodes struct {
	have   map[string]bool
	behind string // the device
	silent string // the command that it does not answer, the next time
}

func (n *nodes) do(line string, w *os.File) {
	var c struct {
		Execute   string
		ID        string
		Arguments struct {
			NodeName string `json:"node-name"`
			Value    string
		}
	}
	refusal := ""
	if err := json.Unmarshal([]byte(line), &c); err != nil {
		refusal = err.Error()
	}
	switch name := c.Arguments.NodeName; c.Execute {
	case "blockdev-add":
		if n.have[name] {
			refusal = "duplicate node " + name
		}
		n.have[name] = true
	case "qom-set":
		if !n.have[c.Arguments.Value] {
			refusal = "no node " + c.Arguments.Value
			break
		}
		n.behind = c.Arguments.Value
	case "blockdev-del":
		if !n.have[name] || n.behind == name {
			refusal = "no node, or in use: " + name
			break
		}
		delete(n.have, name)
	}
	switch {
	case c.Execute == n.silent:
		n.silent = ""
	case refusal != "":
		fmt.Fprintf(w, `{"error":{"class":"GenericError","desc":%q},"id":%q}`+"\n", refusal, c.ID)
	default:
		fmt.Fprintf(w, `{"return":{},"id":%q}`+"\n", c.ID)
	}
}

// TestSwapWithoutAnswer: where QEMU once does not say in time that it has done what it
// was told, it exchanges the disk the next time, and nothing is left over.
func TestSwapWithoutAnswer(t *testing.T) {
	for _, silent := range []string{"blockdev-add", "qom-set", "blockdev-del"} {
		t.Run(silent, func(t *testing.T) {
			d := Disk{Serial: "image0", ReadOnly: true}
			vmm := &nodes{have: map[string]bool{nodeName(d.Serial, 0): true}, behind: nodeName(d.Serial, 0), silent: silent}
			m := &Machine{qmp: hostileQMP(t, vmm.do), swaps: map[string]*swaps{}}
			short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if err := m.swap(short, d, map[string]any{"driver": "file"}); err == nil || !strings.Contains(err.Error(), "deadline") {
				t.Fatalf("without an answer: %v", err)
			}
			for range 2 {
				if err := m.swap(t.Context(), d, map[string]any{"driver": "file"}); err != nil {
					t.Error(err)
				}
			}
			if have := slices.Collect(maps.Keys(vmm.have)); !slices.Equal(have, []string{vmm.behind}) {
				t.Errorf("nodes %q, and %q behind the device", have, vmm.behind)
			}
		})
	}
}
