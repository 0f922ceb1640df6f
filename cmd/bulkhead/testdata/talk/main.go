// Command talk is both ends of a conversation, for sessions about networks: it
// runs in workloads and on what they take for the host.
//
//	talk serve tcp|udp ADDRESS...      answer each caller with who it seems to be
//	talk ask tcp|udp ADDRESS           print the answer
//	talk await tcp|udp ADDRESS         ask until there is one, for a while
//	talk lookup NAME                   print the addresses of a name
//	talk dns ADDRESS IPV4              be a name server by which every name has this one
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"
)

const patience = 3 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) >= 3 && args[0] == "serve":
		failed := make(chan error)
		for _, address := range args[2:] {
			if err := serve(args[1], address, failed); err != nil {
				return err
			}
		}
		fmt.Println("ready")
		return <-failed
	case len(args) == 3 && args[0] == "ask":
		return ask(args[1], args[2])
	case len(args) == 3 && args[0] == "await":
		for deadline := time.Now().Add(10 * patience); ; time.Sleep(100 * time.Millisecond) {
			if err := ask(args[1], args[2]); err == nil || time.Now().After(deadline) {
				return err
			}
		}
	case len(args) == 3 && args[0] == "dns":
		return nameServer(args[1], net.ParseIP(args[2]).To4())
	case len(args) == 2 && args[0] == "lookup":
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		addrs, err := net.DefaultResolver.LookupHost(ctx, args[1])
		if err != nil {
			return err
		}
		slices.Sort(addrs)
		fmt.Println(strings.Join(addrs, " "))
		return nil
	}
	return fmt.Errorf("usage: talk serve|ask tcp|udp ADDRESS, or talk lookup NAME")
}

func serve(network, address string, failed chan<- error) error {
	name, _ := os.Hostname()
	answer := func(a net.Addr) []byte {
		host, _, _ := net.SplitHostPort(a.String())
		return fmt.Appendf(nil, "%s answers %s on %s\n", name, host, address)
	}
	if network == "udp" {
		c, err := net.ListenPacket("udp", address)
		if err != nil {
			return err
		}
		go func() {
			b := make([]byte, 2048)
			for {
				_, from, err := c.ReadFrom(b)
				if err == nil {
					_, err = c.WriteTo(answer(from), from)
				}
				if err != nil {
					failed <- err
				}
			}
		}()
		return nil
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				failed <- err
				return
			}
			go func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				// Who calls speaks first: Debian's passt brings no other call in.
				if _, err := c.Read(make([]byte, 16)); err == nil {
					c.Write(answer(c.RemoteAddr()))
				}
			}()
		}
	}()
	return nil
}

func ask(network, address string) error {
	c, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if network == "udp" {
		if _, err := c.Write([]byte("hello")); err != nil {
			return err
		}
		b := make([]byte, 2048)
		n, err := c.Read(b)
		os.Stdout.Write(b[:n])
		return err
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	b, err := io.ReadAll(c)
	os.Stdout.Write(b)
	if err == nil && len(b) == 0 {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// nameServer answers each question for an IPv4 address with the same, and every
// other with nothing (RFC 1035, section 4).
func nameServer(at string, answer net.IP) error {
	p, err := net.ListenPacket("udp", at)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	b := make([]byte, 512)
	for {
		n, from, err := p.ReadFrom(b)
		if err != nil {
			return err
		}
		end := 12
		for end < n && b[end] != 0 {
			end += 1 + int(b[end])
		}
		if end += 5; end > n {
			continue
		}
		out := append([]byte{}, b[:end]...)
		out[2], out[3], out[7], out[11] = 0x81, 0x80, 0, 0 // a response; no records yet
		if b[end-3] == 1 {
			out[7] = 1
			out = append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4)
			out = append(out, answer...)
		}
		p.WriteTo(out, from) //nolint:errcheck // it asks again
	}
}
