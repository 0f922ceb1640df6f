package protocol

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func TestMessages(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	req := Request{Op: OpCreate, Create: &Create{
		Spec: workload.Spec{ID: workload.NewID()}, Image: "image0", IDBase: 100000, IDCount: 65536,
		Files: map[string][]byte{"/etc/hosts": []byte("127.0.0.1\n")}, Volumes: map[int]string{2: "v2"},
	}}
	w.JSON(TypeRequest, req)
	w.JSON(TypeReply, Reply{Processes: []int{1, 2}})
	w.Bytes(TypeStdout, append(make([]byte, MessageHeader), "text"...))
	w.Window(7)
	w.Resize(24, 80)
	w.CloseOutput(2)
	w.CloseStdin()
	w.Notice("a line")
	r := NewReader(&b)
	if got, err := r.Request(); err != nil || !reflect.DeepEqual(*got, req) {
		t.Errorf("request: %+v, %v", got, err)
	}
	if got, err := r.Reply(); err != nil || len(got.Processes) != 2 {
		t.Errorf("reply: %+v, %v", got, err)
	}
	for _, want := range []struct {
		t Type
		p string
	}{{TypeStdout, "text"}, {TypeWindow, "\x00\x00\x00\x07"}, {TypeResize, "\x00\x18\x00\x50"}, {TypeCloseOutput, "\x02"}, {TypeCloseStdin, ""}, {TypeNotice, "a line"}} {
		if got, p, err := r.Next(); err != nil || got != want.t || string(p) != want.p {
			t.Errorf("got %d, %q, %v, want %d, %q", got, p, err, want.t, want.p)
		}
	}
	if _, _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestErrorsKeepTheirKind(t *testing.T) {
	for _, want := range []error{
		workload.ErrNotFound, workload.ErrNotRunning, workload.ErrRunning, workload.ErrUnsupported,
		workload.ErrNotExecutable, workload.ErrCommandNotFound, ErrProtocol,
	} {
		var b bytes.Buffer
		NewWriter(&b).JSON(TypeReply, Reply{Error: NewError(errors.Join(errors.New("x"), want))})
		got, err := NewReader(&b).Reply()
		if err != nil || !errors.Is(got.Error, want) {
			t.Errorf("%v became %v, %v", want, got, err)
		}
	}
	if e := NewError(errors.New("plain")); errors.Unwrap(e) != nil || e.Error() != "plain" {
		t.Errorf("got %+v", e)
	}
	if NewError(nil) != nil {
		t.Error("no error became one")
	}
	if e := NewError(errors.New(strings.Repeat("x", 1<<20))); len(e.Message) > maxError {
		t.Errorf("a message of %d bytes", len(e.Message))
	}
}

// TestLongTexts: a text that is too long, or that is none, arrives all the same,
// cut between two characters.
func TestLongTexts(t *testing.T) {
	for name, text := range map[string]string{
		"even": "x" + strings.Repeat("é", 5000), "odd": "xy" + strings.Repeat("é", 5000),
		"no text": strings.Repeat("\xffx", 9000), "escaped": strings.Repeat("\x01", 9000),
	} {
		var b bytes.Buffer
		w, r := NewWriter(&b), NewReader(&b)
		if err := errors.Join(w.JSON(TypeReply, Reply{Error: NewError(errors.New(text))}), w.Exit(workload.Exit{Code: 255, Error: text})); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		reply, err := r.Reply()
		if err != nil || len(reply.Error.Message) < maxError-len("é") {
			t.Errorf("%s: an error became %.80v, %v", name, reply, err)
		}
		_, payload, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		exit, err := ParseExit(payload)
		if err != nil || len(exit.Error) < maxError-len("é") || exit.Code != 255 {
			t.Errorf("%s: an exit became %.80v, %v", name, exit, err)
		}
		if _, err := ParseReply(marshal(t, Reply{Described: Described{{PID: 1, Command: text}}.Fitting()})); err != nil {
			t.Errorf("%s: a process became %v", name, err)
		}
	}
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTextIsSafe wants what a guest says to be harmless on a terminal.
func TestTextIsSafe(t *testing.T) {
	var b bytes.Buffer
	NewWriter(&b).JSON(TypeReply, Reply{Error: &Error{Message: "\x1b]0;owned\x07 and \u009b2J\xff"}})
	r, err := NewReader(&b).Reply()
	if err != nil || r.Error.Message != "?]0;owned? and ?2J\ufffd" {
		t.Errorf("got %+q, %v", r.Error.Message, err)
	}
	if got := ParseNotice([]byte("\x1b[31mred\n")); got != "?[31mred\n" {
		t.Errorf("got %q", got)
	}
}

func TestHostileMessages(t *testing.T) {
	head := func(t Type, n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(t)<<24|uint32(n)) }
	for name, b := range map[string][]byte{
		"unknown type":  head(typeEnd, 0),
		"type zero":     head(0, 0),
		"long data":     head(TypeStdout, MaxData+1),
		"long number":   head(TypeWindow, 5),
		"cut off":       append(head(TypeStdout, 10), "short"...),
		"cut in header": {byte(TypeStdout)},
	} {
		if _, _, err := NewReader(bytes.NewReader(b)).Next(); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, b := range map[string][]byte{
		"another type":  head(TypeStdout, 0),
		"no JSON":       append(head(TypeReply, 1), '{'),
		"wrong type":    append(head(TypeReply, 15), `{"processes":1}`...),
		"deep nesting":  append(head(TypeReply, 1<<16), bytes.Repeat([]byte{'['}, 1<<16)...),
		"a novel":       longReply(),
		"endless float": append(head(TypeReply, 19), `{"processes":[1e9]}`...),
	} {
		if _, err := NewReader(bytes.NewReader(b)).Reply(); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{`{"code":256}`, `{"code":-1}`, `{"signal":65}`, `{"signal":-9}`, `{"code":1.5}`, `[]`, ``} {
		if _, err := ParseExit([]byte(text)); !errors.Is(err, ErrProtocol) {
			t.Errorf("exit %s: %v", text, err)
		}
	}
	if e, err := ParseExit([]byte(`{"code":137,"signal":9,"oomKilled":true,"at":"2026-01-02T03:04:05Z"}`)); err != nil || e.Code != 137 || !e.OOMKilled || e.At.IsZero() {
		t.Errorf("got %+v, %v", e, err)
	}
	for _, p := range []string{"", "\x00", "\x03", "\x01\x02"} {
		if _, err := ParseDescriptor([]byte(p)); !errors.Is(err, ErrProtocol) {
			t.Errorf("descriptor %q: %v", p, err)
		}
	}
	if _, _, err := ParseSize([]byte("xyz")); !errors.Is(err, ErrProtocol) {
		t.Errorf("size: %v", err)
	}
}

func longReply() []byte {
	var b bytes.Buffer
	NewWriter(&b).JSON(TypeReply, Reply{Error: &Error{Message: strings.Repeat("x", maxError+1)}})
	return b.Bytes()
}

// TestClaimedLength wants memory to follow what arrives, not what is claimed.
func TestClaimedLength(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 20 {
		b := binary.BigEndian.AppendUint32(nil, uint32(TypeRequest)<<24|MaxRequest)
		if _, err := NewReader(bytes.NewReader(b)).Request(); !errors.Is(err, ErrProtocol) {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > MaxRequest {
		t.Errorf("%d bytes for 20 messages of nothing", got)
	}
}

func TestTooLong(t *testing.T) {
	err := NewWriter(io.Discard).JSON(TypeRequest, Request{Seed: make([]byte, MaxRequest)})
	if !errors.Is(err, ErrTooLong) {
		t.Errorf("got %v", err)
	}
	if err := NewWriter(io.Discard).JSON(TypeReply, math.Inf(1)); err == nil {
		t.Error("infinity is no JSON")
	}
	if err := NewWriter(io.Discard).JSON(TypeRequest, Request{Time: time.Unix(1, 0)}); err != nil {
		t.Error(err)
	}
}
