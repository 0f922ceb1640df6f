package attach

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// A message on the socket is its length in four bytes, big endian, a JSON text,
// and then descriptors, each batch with one byte. Both sides are ours; what is
// bounded is what a mistake can cost.
const (
	maxMessage = 8 << 20 // bytes; a request may name 65535 ports
	maxFiles   = 1 << 18
	batch      = 250 // the kernel passes on 253 descriptors at once (SCM_MAX_FD)
)

// Message is what is said in either direction; of the first five fields one is set,
// or none where a namespace is sent.
type Message struct {
	Request  *network.Request  `json:"request,omitempty"`
	Prepared *network.Prepared `json:"prepared,omitempty"`
	// Release asks to take the workload of this ID out of its networks.
	Release workload.ID `json:"release,omitempty"`
	Error   *Failure    `json:"error,omitempty"`
	Done    bool        `json:"done,omitempty"`
	// Trace asks for the phases of what follows; Phases are those of an answer.
	Trace  bool          `json:"trace,omitempty"`
	Phases []trace.Phase `json:"phases,omitempty"`
	// Taps and Files say how many descriptors come with it: taps first.
	Taps  int `json:"taps,omitempty"`
	Files int `json:"files,omitempty"`
}

// Failure is an error on its way to another process.
type Failure struct {
	Text string `json:"text"`
	Kind int    `json:"kind,omitempty"` // of kinds, counted from 1
}

// kinds are the errors that callers branch on. Their order is the protocol's; both
// programs are of one release.
var kinds = []error{
	network.ErrNotFound, network.ErrAmbiguous, network.ErrExists, network.ErrInvalid, network.ErrOverlap,
	network.ErrInUse, network.ErrDefault, network.ErrExhausted, network.ErrAddressTaken, network.ErrPortTaken,
	workload.ErrUnsupported,
}

// Fail turns an error into a message.
func Fail(err error) Message {
	f := &Failure{Text: err.Error()}
	for i, k := range kinds {
		if errors.Is(err, k) {
			f.Kind = i + 1
			break
		}
	}
	return Message{Error: f}
}

// failure is an error that came from the other process.
type failure struct {
	text string
	kind error
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.kind }

// Err is the error that f stands for.
func (f *Failure) Err() error {
	e := &failure{text: f.Text}
	if f.Kind > 0 && f.Kind <= len(kinds) {
		e.kind = kinds[f.Kind-1]
	}
	return e
}

// Send writes a message and descriptors, whose number is noted in it: taps, then
// files.
func Send(to *os.File, m Message, taps, files []*os.File) error {
	m.Taps, m.Files = len(taps), len(taps)+len(files)
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return fmt.Errorf("a message of %d bytes is too long", len(b))
	}
	if _, err := to.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)); err != nil {
		return err
	}
	all := append(append([]*os.File{}, taps...), files...)
	for len(all) > 0 {
		n := min(len(all), batch)
		fds := make([]int, n)
		for i, f := range all[:n] {
			fds[i] = int(f.Fd())
		}
		for {
			err := syscall.Sendmsg(int(to.Fd()), []byte{0}, syscall.UnixRights(fds...), nil, syscall.MSG_NOSIGNAL)
			if err == nil {
				break
			}
			if err != syscall.EINTR {
				return os.NewSyscallError("sendmsg", err)
			}
		}
		all = all[n:]
	}
	return nil
}

// Receive reads a message and its descriptors, which are the caller's to close. At
// the end of the stream it returns io.EOF.
func Receive(from *os.File) (m Message, taps, files []*os.File, err error) {
	var all []*os.File
	defer func() {
		if err != nil {
			for _, f := range all {
				f.Close()
			}
		}
	}()
	var length [4]byte
	if _, err := io.ReadFull(from, length[:]); err != nil {
		return m, nil, nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > maxMessage {
		return m, nil, nil, fmt.Errorf("a message of %d bytes is too long", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(from, b); err != nil {
		return m, nil, nil, unexpected(err)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, nil, nil, err
	}
	if m.Taps < 0 || m.Files < m.Taps || m.Files > maxFiles {
		return m, nil, nil, fmt.Errorf("a message with %d descriptors, %d of taps", m.Files, m.Taps)
	}
	for len(all) < m.Files {
		got, err := receiveFiles(from)
		all = append(all, got...)
		if err != nil {
			return m, nil, nil, err
		}
	}
	if len(all) > m.Files {
		return m, nil, nil, fmt.Errorf("%d descriptors came instead of %d", len(all), m.Files)
	}
	return m, all[:m.Taps:m.Taps], all[m.Taps:], nil
}

func receiveFiles(from *os.File) ([]*os.File, error) {
	oob := make([]byte, syscall.CmsgSpace(4*batch))
	var one [1]byte
	var n, oobn, flags int
	var err error
	for {
		n, oobn, flags, _, err = syscall.Recvmsg(int(from.Fd()), one[:], oob, syscall.MSG_CMSG_CLOEXEC)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		return nil, os.NewSyscallError("recvmsg", err)
	}
	var out []*os.File
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	for _, cm := range messages {
		fds, ferr := syscall.ParseUnixRights(&cm)
		err = errors.Join(err, ferr)
		for _, fd := range fds {
			out = append(out, os.NewFile(uintptr(fd), "descriptor of a network"))
		}
	}
	switch {
	case err != nil:
	case n == 0:
		err = io.ErrUnexpectedEOF
	case len(out) == 0 || flags&syscall.MSG_CTRUNC != 0:
		err = errors.New("descriptors were lost on their way: is the limit of open files reached?")
	}
	return out, err
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
