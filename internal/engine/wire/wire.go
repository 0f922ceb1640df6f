// Package wire is the protocol between the engine and a supervisor: framed
// messages over a unix stream socket.
//
//	byte 0    type
//	byte 1-3  zero
//	byte 4-7  length of the payload, big endian
//	…         payload
//
// Each connection carries one Request, which is its first frame, and what
// belongs to it:
//
//	client                          supervisor
//	  Request(start|attach|exec) ──>
//	                             <── Reply            it runs; or why not, and the end
//	  Stdin, CloseStdin          ──>
//	                             <── Window           so many more bytes of Stdin may be sent
//	  Resize, Signal             ──>
//	                             <── Stdout, Stderr
//	                             <── Trace            where OpStart asked for it
//	                             <── Exit             the end
//	  Request(wait)              ──>
//	                             <── Exit
//	  Request(read-files|changes) ─>
//	                             <── Stdout           a tar stream, or workload.WriteChanges'
//	                             <── Reply            whether it is whole
//	  Request(write-files)       ──>
//	  Stdin, CloseStdin          ──>                  a tar stream
//	                             <── Reply            at any time
//	  Request(anything else)     ──>
//	                             <── Reply
//
// A client that closes its connection detaches: the process goes on. Stdin is
// limited by a window, so that a process that does not read its input holds up
// neither Resize nor Signal. Both sides check types and lengths; a violation
// ends the connection. The first connection of a supervisor is a socket pair
// that it inherits, and carries start; the others arrive at its socket from
// processes of the same user or root.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/attach"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Version is the version of the protocol. A supervisor serves only its own: it
// may be older than the command that talks to it, after an upgrade.
const Version = 1

// Type is the type of a frame.
type Type byte

// The types of frames.
const (
	TypeRequest    Type = iota + 1 // JSON of Request
	TypeReply                      // JSON of Reply
	TypeExit                       // JSON of workload.Exit
	TypeStdin                      // bytes
	TypeCloseStdin                 // nothing
	TypeStdout                     // bytes
	TypeStderr                     // bytes
	TypeResize                     // rows, columns: 2 bytes each
	TypeSignal                     // number: 4 bytes
	TypeWindow                     // 4 bytes
	TypeTrace                      // JSON of a list of trace.Phase
	typeEnd
)

// Limits on frames, in bytes.
const (
	HeaderSize = 8
	MaxData    = 32 << 10 // Stdin, Stdout, Stderr
	MaxMessage = 16 << 20 // Request, Reply, Exit: a Spec may hold a seccomp profile
	// StdinWindow is how much of Stdin may be under way at first.
	StdinWindow = 128 << 10
)

// maxPayload is the most that a frame of each type may hold.
var maxPayload = [typeEnd]uint32{
	TypeRequest: MaxMessage, TypeReply: MaxMessage, TypeExit: MaxMessage,
	TypeStdin: MaxData, TypeStdout: MaxData, TypeStderr: MaxData,
	TypeResize: 4, TypeSignal: 4, TypeWindow: 4,
	TypeTrace: MaxMessage,
}

// ErrProtocol tells that the other side does not follow the protocol.
var ErrProtocol = errors.New("protocol error")

// Op is what a Request asks for.
type Op string

// The operations.
const (
	OpStart     Op = "start"
	OpAttach    Op = "attach"
	OpExec      Op = "exec"
	OpSignal    Op = "signal"
	OpStop      Op = "stop"    // the Reply comes when the workload has ended
	OpRestart   Op = "restart" // the Reply comes when the workload runs again
	OpWait      Op = "wait"
	OpPause     Op = "pause"
	OpResume    Op = "resume"
	OpProcesses Op = "processes"
	OpDescribe  Op = "describe"
	OpMeasure   Op = "measure"
	OpUpdate    Op = "update"
	OpRename    Op = "rename"
	// OpConnect and OpDisconnect change the networks of a workload.
	OpConnect    Op = "connect"
	OpDisconnect Op = "disconnect"
	OpStatus     Op = "status"
	// OpWarm, in the place of OpStart, makes a machine that waits for a workload: see
	// package warm. OpClaim gives it one: after the Reply come two descriptors, the
	// workload's lock and a connection that will carry OpStart, and another Reply.
	// OpRetire ends it.
	OpWarm   Op = "warm"
	OpClaim  Op = "claim"
	OpRetire Op = "retire"
	OpDial   Op = "dial"   // after the Reply the connection is a stream to the guest's agent
	OpInsert Op = "insert" // after the Reply the disk stays until the connection is closed
	OpPlug   Op = "plug"   // after the Reply comes a descriptor, and another Reply, and then as with OpInsert
	// The files of the workload, see boundary.Files.
	OpReadFiles  Op = "read-files"
	OpWriteFiles Op = "write-files"
	OpStatPath   Op = "stat-path"
	OpChanges    Op = "changes"
)

// Until is what OpWait waits for.
type Until string

// What can be waited for.
const (
	UntilExit    Until = ""        // the end of a life: of the one that runs, or of the next
	UntilStopped Until = "stopped" // the end without another life after it
)

// Request is a client's first frame.
type Request struct {
	Version int    `json:"version"`
	Op      Op     `json:"op"`
	Start   *Start `json:"start,omitempty"`
	Warm    *Warm  `json:"warm,omitempty"`
	Exec    *Exec  `json:"exec,omitempty"`
	// Signal is OpSignal's, and OpStop's and OpRestart's where it is not the workload's own.
	Signal syscall.Signal `json:"signal,omitempty"`
	Files  *Files         `json:"files,omitempty"`
	// Image is OpInsert's, an absolute path.
	Image string `json:"image,omitempty"`
	// Stream is OpPlug's: the descriptor is a stream socket and no tap device.
	Stream bool `json:"stream,omitempty"`
	// Until is OpWait's; "" is UntilExit.
	Until Until `json:"until,omitempty"`
	// Update is OpUpdate's, Name OpRename's.
	Update *Update `json:"update,omitempty"`
	Name   string  `json:"name,omitempty"`
	// Network is OpConnect's and, by its name, OpDisconnect's.
	Network *workload.Attachment `json:"network,omitempty"`
	// Timeout is OpStop's and OpRestart's.
	Timeout time.Duration `json:"timeout,omitempty"`
	// Streams asks OpStart and OpExec for the output and for Exit; without it
	// the connection ends with the Reply. Rows and Cols, of OpAttach and with
	// Streams, are the size of the client's terminal.
	Streams bool   `json:"streams,omitempty"`
	Rows    uint16 `json:"rows,omitempty"`
	Cols    uint16 `json:"cols,omitempty"`
	// Trace asks OpStart for the phases of the start, and with Streams for those
	// of the end.
	Trace bool `json:"trace,omitempty"`
}

// Start is all that a supervisor must know.
type Start struct {
	Root  string        `json:"root"`
	Run   string        `json:"run"`
	Spec  workload.Spec `json:"spec"`
	State state.State   `json:"state"` // holds what was prepared
	Init  string        `json:"init"`  // see boundary.Prepared
	// Networks says how Spec.Networks are joined, nil if there are none to join.
	Networks *attach.Config `json:"networks,omitempty"`
	// Input tells that the client that starts it has an input, and that the end of a
	// client's is the end of the workload's. Without, the input stays open for the next
	// who attaches.
	Input bool `json:"input,omitempty"`
	// Hold creates the instance for the sake of its files and never starts it: the
	// supervisor serves requests about files until this connection is closed.
	Hold bool `json:"hold,omitempty"`
}

// Prepared returns what the boundary gets.
func (s *Start) Prepared() boundary.Prepared {
	return boundary.Prepared{
		Dir:    state.Layout{Root: s.Root, Run: s.Run}.RunDir(s.Spec.ID),
		Layers: s.State.Layers, Upper: s.State.Upper, Work: s.State.Work,
		IDBase: s.State.IDBase, IDCount: s.State.IDCount,
		Files: s.State.Files, Cgroup: s.State.Cgroup, Init: s.Init, Machine: s.State.Machine,
	}
}

// Warm says which machine is to wait.
type Warm struct {
	Root string `json:"root"`
	Run  string `json:"run"`
	Key  string `json:"key"` // of the pool
}

// Files says what of a workload's files is meant.
type Files struct {
	Path  string                  `json:"path"`
	Read  boundary.ReadOptions    `json:"read,omitzero"`
	Write boundary.ArchiveOptions `json:"write,omitzero"`
}

// Update changes what a workload is limited to. What is nil or zero stays.
type Update struct {
	Resources workload.Resources `json:"resources"`
	Restart   *workload.Restart  `json:"restart,omitempty"`
}

// Exec asks for another process.
type Exec struct {
	Process workload.Process `json:"process"`
	// Stdin asks for a standard input that takes Stdin frames; without it, it
	// is /dev/null.
	Stdin bool `json:"stdin,omitempty"`
}

// Reply answers a Request.
type Reply struct {
	Error     *Error       `json:"error,omitempty"`
	PID       int          `json:"pid,omitempty"` // of the process that was started
	Processes []int        `json:"processes,omitempty"`
	State     *state.State `json:"state,omitempty"`
	// Described is OpDescribe's, Usage OpMeasure's.
	Described []workload.ProcessInfo `json:"described,omitempty"`
	Usage     *workload.Usage        `json:"usage,omitempty"`
	// Terminal is set when the process has one, Stdin when it has an input.
	Terminal bool `json:"terminal,omitempty"`
	Stdin    bool `json:"stdin,omitempty"`
	// Serial is OpInsert's: the serial number of the disk.
	Serial string `json:"serial,omitempty"`
	// Device is OpPlug's: the MAC address of the network device, in the second Reply.
	Device string `json:"device,omitempty"`
	// Path is OpStatPath's.
	Path *workload.PathStat `json:"path,omitempty"`
	// Warnings are OpStart's and OpConnect's: sentences for the person who asked.
	Warnings []string `json:"warnings,omitempty"`
	// Phases are OpStart's, also beside an Error.
	Phases []trace.Phase `json:"phases,omitempty"`
}

// Error is an error that crosses the socket. Code keeps the sentinel errors
// that callers branch on; "" is any other error.
type Error struct {
	Code    string `json:"code,omitempty"`
	Message string `json:"message"`
}

// sentinels are in the order in which they count where an error wraps several, such as
// that of a start and that of cleaning up after it.
var sentinels = []struct {
	code string
	err  error
}{
	{"command-not-found", workload.ErrCommandNotFound},
	{"not-executable", workload.ErrNotExecutable},
	{"not-found", workload.ErrNotFound},
	{"name-taken", workload.ErrNameTaken},
	{"no-path", workload.ErrNoPath},
	{"not-running", workload.ErrNotRunning},
	{"running", workload.ErrRunning},
	{"unsupported", workload.ErrUnsupported},
	{"supervisor-lost", workload.ErrSupervisorLost},
	{"no-network", network.ErrNotFound},
	{"network-invalid", network.ErrInvalid},
	{"network-exhausted", network.ErrExhausted},
	{"address-taken", network.ErrAddressTaken},
	{"port-taken", network.ErrPortTaken},
}

// NewError returns err in the form that crosses the socket, nil for nil.
func NewError(err error) *Error {
	if err == nil {
		return nil
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return &Error{Code: s.code, Message: err.Error()}
		}
	}
	return &Error{Message: err.Error()}
}

func (e *Error) Error() string { return e.Message }
func (e *Error) Unwrap() error {
	for _, s := range sentinels {
		if s.code == e.Code {
			return s.err
		}
	}
	return nil
}

// AppendFrame appends one frame to b. The payload must not exceed the type's limit.
func AppendFrame(b []byte, t Type, payload []byte) []byte {
	b = append(b, byte(t), 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return append(b, payload...)
}

// AppendJSON appends a frame that holds v.
func AppendJSON(b []byte, t Type, v any) ([]byte, error) {
	p, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(p) > int(maxPayload[t]) {
		return nil, fmt.Errorf("message of %d bytes is longer than %d", len(p), maxPayload[t])
	}
	return AppendFrame(b, t, p), nil
}

// AppendUint32 appends a frame that holds one number.
func AppendUint32(b []byte, t Type, n uint32) []byte {
	return AppendFrame(b, t, binary.BigEndian.AppendUint32(nil, n))
}

// Uint32 reads the payload of Signal and Window.
func Uint32(payload []byte) (uint32, error) {
	if len(payload) != 4 {
		return 0, fmt.Errorf("%w: %d bytes where a number belongs", ErrProtocol, len(payload))
	}
	return binary.BigEndian.Uint32(payload), nil
}

// AppendResize appends a Resize frame.
func AppendResize(b []byte, rows, cols uint16) []byte {
	return AppendUint32(b, TypeResize, uint32(rows)<<16|uint32(cols))
}

// Size reads the payload of Resize.
func Size(payload []byte) (rows, cols uint16, err error) {
	n, err := Uint32(payload)
	return uint16(n >> 16), uint16(n), err
}

// Reader reads frames.
type Reader struct {
	r      io.Reader
	header [HeaderSize]byte
	buf    []byte
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// growth is how much memory is given to a long frame at a time, as its bytes
// arrive, whatever length it claims.
const growth = 64 << 10

// Next returns the next frame. The payload is valid until the next call. The
// error is io.EOF at the end between two frames.
func (r *Reader) Next() (Type, []byte, error) {
	if _, err := io.ReadFull(r.r, r.header[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: cut off in a header", ErrProtocol)
		}
		return 0, nil, err
	}
	t, n := Type(r.header[0]), binary.BigEndian.Uint32(r.header[4:])
	if t == 0 || t >= typeEnd || r.header[1]|r.header[2]|r.header[3] != 0 {
		return 0, nil, fmt.Errorf("%w: frame of unknown type % x", ErrProtocol, r.header[:4])
	}
	if n > maxPayload[t] {
		return 0, nil, fmt.Errorf("%w: frame of type %d with %d bytes", ErrProtocol, t, n)
	}
	if cap(r.buf) > growth && int(n) <= growth {
		r.buf = nil // do not keep what one long message needed
	}
	r.buf = r.buf[:0]
	for uint32(len(r.buf)) < n {
		have := len(r.buf)
		want := min(int(n)-have, growth)
		if cap(r.buf) < have+want {
			r.buf = append(make([]byte, 0, max(have+want, 2*have)), r.buf...)
		}
		r.buf = r.buf[:have+want]
		if _, err := io.ReadFull(r.r, r.buf[have:]); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = fmt.Errorf("%w: cut off in a frame", ErrProtocol)
			}
			return 0, nil, err
		}
	}
	return t, r.buf, nil
}

// Message reads the next frame, which must be of type t, into v.
func (r *Reader) Message(t Type, v any) error {
	got, payload, err := r.Next()
	if err != nil {
		return err
	}
	if got != t {
		return fmt.Errorf("%w: frame of type %d where %d belongs", ErrProtocol, got, t)
	}
	return Decode(payload, v)
}

// Decode reads the JSON of a Request, Reply, Exit or Trace.
func Decode(payload []byte, v any) error {
	if err := json.Unmarshal(payload, v); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return nil
}
