package meter

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

// A victim is a program that answers requests, one after the other, each of them the
// same: a hash of so many bytes on one processor, and a file of as many written, read
// and removed. It feels what its neighbours do to the processors, to memory and to
// the file system.
const requestSize = 16 << 10

// maxRequests bounds a round: what takes more ends before its time.
const maxRequests = 1 << 20

// The lines with which a victim and whoever drives it speak: the victim is there, a
// round shall begin, an aggressor has begun.
const (
	Ready = "ready"
	Go    = "go"
	Begun = "begun"
)

// Requests are what one round of a victim found out.
type Requests struct {
	Count   int     `json:"count"`
	Seconds float64 `json:"seconds"` // that all of them took
	P50     float64 `json:"p50"`     // seconds that one took
	P99     float64 `json:"p99"`
}

// Rate is how many requests there were in a second.
func (r *Requests) Rate() float64 { return float64(r.Count) / r.Seconds }

// Encode returns one line of JSON.
func (r *Requests) Encode() ([]byte, error) { return line(r) }

// maxLine is what one line of a victim or of an aggressor has at most, in bytes.
const maxLine = 4096

// DecodeRequests reads a line that Encode wrote. An error wraps report.ErrMalformed.
func DecodeRequests(b []byte) (*Requests, error) {
	var r Requests
	if err := decodeLine(b, &r); err != nil {
		return nil, err
	}
	if r.Count <= 0 || r.Count > maxRequests || !(r.Seconds > 0) || !(r.P50 > 0) || !(r.P99 >= r.P50) || math.IsInf(r.Seconds, 0) || math.IsInf(r.P99, 0) {
		return nil, fmt.Errorf("%w: %d requests in %v seconds, of %v and %v", report.ErrMalformed, r.Count, r.Seconds, r.P50, r.P99)
	}
	return &r, nil
}

func decodeLine(b []byte, v any) error {
	if len(b) > maxLine {
		return fmt.Errorf("%w: more than %d bytes", report.ErrMalformed, maxLine)
	}
	return report.Strict(bytes.TrimSuffix(b, []byte{'\n'}), v)
}

// Victim says that it is there, and takes one round of requests, for some time, for
// each line that comes in, until there is none. Files are in dir, one at a time.
func Victim(in io.Reader, out io.Writer, dir string, d time.Duration) error {
	debug.SetGCPercent(-1) // it collects between the rounds
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := &rig{dir: dir}
	defer r.close()
	request := newRequest(r)
	took := make([]time.Duration, 0, 1<<14)
	if _, err := requests(request, d/10, took); err != nil { // what is only slow the first time
		return err
	}
	if _, err := io.WriteString(out, Ready+"\n"); err != nil {
		return err
	}
	orders := bufio.NewScanner(in)
	for orders.Scan() {
		if orders.Text() != Go {
			return fmt.Errorf("a victim is told %q, and not %q", clean(orders.Text()), Go)
		}
		runtime.GC()
		result, err := requests(request, d, took)
		if err != nil {
			return err
		}
		b, err := result.Encode()
		if err != nil {
			return err
		}
		if _, err := out.Write(b); err != nil {
			return err
		}
	}
	return orders.Err()
}

// requests takes requests for some time, at least one. The times are kept in took.
func requests(request func() error, d time.Duration, took []time.Duration) (*Requests, error) {
	took = took[:0]
	start := time.Now()
	last := start
	for len(took) == 0 || last.Sub(start) < d && len(took) < maxRequests {
		if err := request(); err != nil {
			return nil, err
		}
		now := time.Now()
		took = append(took, now.Sub(last))
		last = now
	}
	return summary(took)
}

// summary is what the times of all requests of a round amount to.
func summary(took []time.Duration) (*Requests, error) {
	var all time.Duration
	for _, d := range took {
		all += d
	}
	slices.Sort(took)
	r := &Requests{Count: len(took), Seconds: all.Seconds(), P50: report.Quantile(took, 0.50).Seconds(), P99: report.Quantile(took, 0.99).Seconds()}
	if r.P50 <= 0 {
		return nil, errors.New("the clock stands still")
	}
	return r, nil
}

// newRequest is what one request does.
func newRequest(r *rig) func() error {
	name, data, back := r.name(), text(requestSize), make([]byte, requestSize)
	r.later(func() { _ = unix.Unlink(name) }) // there is one only after a failure
	return func() error {
		sum := sha256.Sum256(data)
		copy(data, sum[:])
		fd, err := unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return &os.PathError{Op: "open", Path: name, Err: err}
		}
		err = writeAll(fd, data, 0)
		if err == nil {
			err = readAll(fd, back, 0)
		}
		if err := errors.Join(err, os.NewSyscallError("close", unix.Close(fd))); err != nil {
			return err
		}
		if err := unix.Unlink(name); err != nil {
			return &os.PathError{Op: "unlink", Path: name, Err: err}
		}
		if !bytes.Equal(data, back) {
			return errors.New("the file has other bytes than were written")
		}
		return nil
	}
}
