package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func TestDescribedFits(t *testing.T) {
	for _, n := range []int{0, 1, 100, MaxDescribed, 2 * MaxDescribed} {
		d := Described{}
		for range n {
			d = append(d, workload.ProcessInfo{PID: 1, Command: strings.Repeat("<", 2048)})
		}
		fit := d.Fitting()
		b, err := json.Marshal(Reply{Described: fit})
		if err != nil || len(b) > MaxReply || n > 0 && len(fit) == 0 {
			t.Errorf("%d: %d processes in %d bytes, %v", n, len(fit), len(b), err)
		}
		var back Reply
		if err := json.Unmarshal(b, &back); err != nil || len(back.Described) != len(fit) {
			t.Errorf("%d: %d came back, %v", n, len(back.Described), err)
		}
	}
}

// TestHostileUsage reads replies of an agent that lies.
func TestHostileUsage(t *testing.T) {
	for name, text := range map[string]string{
		"negative figure":    `{"usage":{"memory":-1}}`,
		"negative pid":       `{"described":[{"pid":-1}]}`,
		"too many":           `{"described":[` + strings.Repeat("{},", MaxDescribed) + `{}]}`,
		"no list":            `{"described":{"pid":1}}`,
		"a long state":       `{"described":[{"pid":1,"state":"RRRRRRR"}]}`,
		"a cut list":         `{"described":[{"pid":1}`,
		"too many phases":    `{"phases":[` + strings.Repeat("{},", MaxPhases) + `{}]}`,
		"phases, no list":    `{"phases":"x"}`,
		"a phase too long":   `{"phases":[{"begin":0,"end":3600000000001}]}`,
		"a phase too soon":   `{"phases":[{"begin":-1,"end":1}]}`,
		"backwards":          `{"phases":[{"begin":2,"end":1}]}`,
		"its own part":       `{"phases":[{"parent":1}]}`,
		"part of nothing":    `{"phases":[{"parent":-1}]}`,
		"a long name":        `{"phases":[{"name":"` + strings.Repeat("x", maxPhaseName+1) + `"}]}`,
		"numbers too long":   `{"usage":{"memory":99999999999999999999}}`,
		"more than there is": `{"status":{"memoryTotal":5,"memoryAvailable":6}}`,
		"negative memory":    `{"status":{"memoryTotal":5,"memoryAvailable":-6}}`,
	} {
		var b bytes.Buffer
		if err := NewWriter(&b).payload(TypeReply, []byte(text)...); err != nil {
			t.Fatal(err)
		}
		if _, err := NewReader(&b).Reply(); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	var b bytes.Buffer
	NewWriter(&b).payload(TypeReply, []byte(`{"usage":{"hostMemory":5,"memory":7},"described":[{"pid":1,"command":"a\u001b[2J"}],"phases":[{"name":"b\u001b[2J"},{"parent":1}]}`)...)
	r, err := NewReader(&b).Reply()
	if err != nil || r.Usage.HostMemory != 0 || r.Usage.Memory != 7 || strings.ContainsRune(r.Described[0].Command, 0x1b) || len(r.Phases) != 2 || r.Phases[0].Name != "b?[2J" {
		t.Errorf("got %+v, %v", r, err)
	}
}
