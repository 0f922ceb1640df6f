// Command load moves bytes and messages between two ends of a network for the
// benchmark, which puts it into an image:
//
//	load serve :PORT
//	load call ADDRESS:PORT -stream 2s -ask 1s
//
// The first byte of a connection says what it is for. A stream goes one way, until
// its end, and is answered with the number of bytes that came, so that what is
// still on its way counts as time. A conversation is messages that come back one by
// one. The result is one line of JSON.
package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"
)

const (
	stream       = 's'
	conversation = 'c'

	piece       = 128 << 10 // bytes written at once
	messageSize = 64        // bytes of a request, and of its answer
	// patience bounds what one connection may take beyond the time asked for: a
	// network that lost everything ends the case, not the benchmark.
	patience = 20 * time.Second
)

// result is what one call found out. Trips are in nanoseconds.
type result struct {
	Bytes       int64 `json:"bytes"`
	Nanoseconds int64 `json:"nanoseconds"`
	Trips       int   `json:"trips"`
	P50         int64 `json:"p50"`
	P99         int64 `json:"p99"`
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) < 2 {
		return errors.New("usage: load serve ADDRESS | load call ADDRESS [-stream TIME] [-ask TIME]")
	}
	switch args[0] {
	case "serve":
		l, err := net.Listen("tcp", args[1])
		if err != nil {
			return err
		}
		return serve(l)
	case "call":
		f := flag.NewFlagSet("call", flag.ContinueOnError)
		for1 := f.Duration("stream", 2*time.Second, "how long to send")
		for2 := f.Duration("ask", time.Second, "how long to ask")
		if err := f.Parse(args[2:]); err != nil {
			return err
		}
		r, err := call(args[1], *for1, *for2)
		if err != nil {
			return err
		}
		return json.NewEncoder(out).Encode(r)
	}
	return fmt.Errorf("%q is neither serve nor call", args[0])
}

// serve answers connections until the listener ends.
func serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			if err := answer(c); err != nil && !errors.Is(err, io.EOF) {
				fmt.Fprintln(os.Stderr, "load:", err)
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
	case conversation:
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

func call(addr string, sending, asking time.Duration) (r result, err error) {
	if r.Bytes, r.Nanoseconds, err = send(addr, sending); err != nil {
		return r, fmt.Errorf("send to %s: %w", addr, err)
	}
	trips, err := ask(addr, asking)
	if err != nil {
		return r, fmt.Errorf("ask %s: %w", addr, err)
	}
	r.Trips, r.P50, r.P99 = len(trips), int64(quantile(trips, 0.50)), int64(quantile(trips, 0.99))
	return r, nil
}

func dial(addr string, kind byte, d time.Duration) (*net.TCPConn, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(d + patience)); err != nil {
		return nil, err
	}
	_, err = c.Write([]byte{kind})
	return c.(*net.TCPConn), err
}

// send sends for some time, and waits until all has arrived.
func send(addr string, d time.Duration) (sent, took int64, err error) {
	c, err := dial(addr, stream, d)
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	buf := make([]byte, piece)
	start := time.Now()
	for time.Since(start) < d {
		n, err := c.Write(buf)
		sent += int64(n)
		if err != nil {
			return sent, 0, err
		}
	}
	var total [8]byte
	if err = c.CloseWrite(); err == nil {
		_, err = io.ReadFull(c, total[:])
	}
	took = int64(time.Since(start))
	if got := binary.BigEndian.Uint64(total[:]); err == nil && got != uint64(sent) {
		err = fmt.Errorf("%d bytes of %d arrived", got, sent)
	}
	return sent, took, err
}

// ask sends one message after the other and returns how long each answer took.
func ask(addr string, d time.Duration) (trips []time.Duration, err error) {
	c, err := dial(addr, conversation, d)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var message [messageSize]byte
	for start := time.Now(); time.Since(start) < d || len(trips) == 0; {
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

// quantile is the smallest time that at least the fraction q of the times do not
// exceed. It sorts them, and panics if there are none.
func quantile(times []time.Duration, q float64) time.Duration {
	slices.Sort(times)
	i := int(q*float64(len(times))+0.999999) - 1
	return times[min(max(i, 0), len(times)-1)]
}
