package meter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// The first byte of a connection says what it is for. A stream goes one way, until
// its end, and is answered with the number of bytes that came, so that what is
// still on its way counts as time. A conversation is messages that come back one by
// one.
const (
	stream = 's'
	talk   = 'c'

	piece       = 128 << 10 // bytes written at once
	messageSize = 64        // bytes of a request, and of its answer
	// maxTrips bounds what is kept of a conversation.
	maxTrips = 1 << 20
	// linger bounds what one connection may take beyond the time asked for: a network
	// that lost everything ends the call.
	linger = 20 * time.Second
)

// Traffic is what one Call found out.
type Traffic struct {
	Rate  float64 `json:"rate"`  // of the stream, bytes a second
	Trips int     `json:"trips"` // how many messages came back
	P50   float64 `json:"p50"`   // seconds that one took
	P99   float64 `json:"p99"`
}

// Encode returns one line of JSON.
func (t *Traffic) Encode() ([]byte, error) { return line(t) }

// DecodeTraffic reads a line that Encode wrote. An error wraps report.ErrMalformed.
func DecodeTraffic(b []byte) (*Traffic, error) {
	const most = 4096
	var t Traffic
	if len(b) > most {
		return nil, fmt.Errorf("%w: more than %d bytes", report.ErrMalformed, most)
	}
	if err := report.Strict(bytes.TrimSuffix(b, []byte{'\n'}), &t); err != nil {
		return nil, err
	}
	if !(t.Rate > 0) || math.IsInf(t.Rate, 0) || t.Trips <= 0 || !(t.P50 > 0) || t.P99 < t.P50 {
		return nil, fmt.Errorf("%w: a rate of %v, %d round trips of %v and %v", report.ErrMalformed, t.Rate, t.Trips, t.P50, t.P99)
	}
	return &t, nil
}

// Serve answers connections until the listener ends, and writes to errs what went
// wrong with one.
func Serve(l net.Listener, errs io.Writer) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			if err := answer(c); err != nil && !errors.Is(err, io.EOF) {
				fmt.Fprintln(errs, "bulkhead-meter:", err)
			}
		}()
	}
}

// answer does not use io.Copy, which would leave the bytes in the kernel.
func answer(c net.Conn) error {
	buf := make([]byte, piece)
	if _, err := io.ReadFull(c, buf[:1]); err != nil {
		return err
	}
	switch buf[0] {
	case stream:
		var total uint64
		for {
			n, err := c.Read(buf)
			total += uint64(n)
			if errors.Is(err, io.EOF) {
				_, err = c.Write(binary.BigEndian.AppendUint64(nil, total))
				return err
			}
			if err != nil {
				return err
			}
		}
	case talk:
		for {
			if _, err := io.ReadFull(c, buf[:messageSize]); err != nil {
				return err
			}
			if _, err := c.Write(buf[:messageSize]); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("a connection for %q", buf[0])
}

// Call streams to a server for some time, and then talks to it for some time.
func Call(addr string, streaming, talking time.Duration) (*Traffic, error) {
	sent, took, err := send(addr, streaming)
	if err != nil {
		return nil, fmt.Errorf("stream to %s: %w", addr, err)
	}
	trips, err := converse(addr, talking)
	if err != nil {
		return nil, fmt.Errorf("talk to %s: %w", addr, err)
	}
	slices.Sort(trips)
	return &Traffic{Rate: float64(sent) / took.Seconds(), Trips: len(trips), P50: report.Quantile(trips, 0.50).Seconds(), P99: report.Quantile(trips, 0.99).Seconds()}, nil
}

func dial(addr string, kind byte, d time.Duration) (*net.TCPConn, error) {
	c, err := net.DialTimeout("tcp", addr, linger)
	if err != nil {
		return nil, err
	}
	if err = c.SetDeadline(time.Now().Add(d + linger)); err == nil {
		_, err = c.Write([]byte{kind})
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// send sends for some time, and waits until all has arrived.
func send(addr string, d time.Duration) (sent uint64, took time.Duration, err error) {
	c, err := dial(addr, stream, d)
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	buf := make([]byte, piece)
	start := time.Now()
	for sent == 0 || time.Since(start) < d {
		n, err := c.Write(buf)
		sent += uint64(n)
		if err != nil {
			return sent, 0, err
		}
	}
	var total [8]byte
	if err = c.CloseWrite(); err == nil {
		_, err = io.ReadFull(c, total[:])
	}
	took = time.Since(start)
	if got := binary.BigEndian.Uint64(total[:]); err == nil && got != sent {
		err = fmt.Errorf("%d bytes of %d arrived", got, sent)
	}
	return sent, took, err
}

// converse sends one message after the other and returns how long each answer took.
func converse(addr string, d time.Duration) (trips []time.Duration, err error) {
	c, err := dial(addr, talk, d)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var message [messageSize]byte
	for start := time.Now(); len(trips) == 0 || time.Since(start) < d && len(trips) < maxTrips; {
		before := time.Now()
		if _, err = c.Write(message[:]); err == nil {
			_, err = io.ReadFull(c, message[:])
		}
		if err != nil {
			return nil, err
		}
		trips = append(trips, time.Since(before))
	}
	return trips, nil
}
