// The runtime would read its cgroup's files at start, and keep them open.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command bulkhead-dns is the name server of one network. It is started by
// package dns, which confines it, as two processes:
//
//	bulkhead-dns resolve --network NAME [--peers] [--own] [--public] --sockets N --upstream N SUBNET...
//	bulkhead-dns dial [--own] ADDRESS:PORT...
//
// The resolver answers workloads, out of the leases, or by asking upstream; the
// dialer gives it the sockets for that. The leases are its root directory; with
// --peers they are <network>/leases in it, for each network. With --own, leases name
// servers to be asked for single workloads, and are the dialer's root directory, too.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns/dial"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns/resolve"
)

func main() {
	// Two threads of Go code, so that one that is busy does not hold up the others.
	runtime.GOMAXPROCS(2)
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) > 0 && args[0] == "dial":
		return dialer(args[1:])
	case len(args) > 0 && args[0] == "resolve":
		return resolver(args[1:])
	}
	return errors.New("bulkhead-dns is started by bulkhead, as the name server of a network")
}

func dialer(args []string) error {
	runtime.GOMAXPROCS(1)
	var upstream []netip.AddrPort
	leases := ""
	if len(args) > 0 && args[0] == "--own" {
		args, leases = args[1:], "/"
	}
	for _, a := range args {
		p, err := netip.ParseAddrPort(a)
		if err != nil {
			return err
		}
		upstream = append(upstream, p)
	}
	return dial.Serve(resolve.FDControl, upstream, leases)
}

// memoryLimit makes the collector work harder: what 1024 questions that wait,
// 128 connections, 16 answers of 64 KiB and a thousand leases need is less.
const memoryLimit = 32 << 20

func resolver(args []string) error {
	o := resolve.Options{Leases: "/"}
	var sockets int
	var peers, own bool
	f := flag.NewFlagSet("bulkhead-dns resolve", flag.ContinueOnError)
	f.StringVar(&o.Network, "network", "", "name of the network")
	f.BoolVar(&peers, "peers", false, "the leases of other networks are there, too")
	f.BoolVar(&own, "own", false, "workloads may have upstream servers of their own")
	f.BoolVar(&o.Public, "public", false, "there is a top-level domain of that name, too")
	f.IntVar(&sockets, "sockets", 0, "how many addresses it listens on")
	f.IntVar(&o.Upstream, "upstream", 0, "how many upstream servers there are")
	if err := f.Parse(args); err != nil {
		return err
	}
	for _, a := range f.Args() {
		p, err := netip.ParsePrefix(a)
		if err != nil {
			return err
		}
		o.Subnets = append(o.Subnets, p)
	}
	if peers {
		o.Leases, o.Peers = "/"+o.Network+"/leases", "/"
	}
	if sockets < 1 || sockets > resolve.MaxListen {
		return fmt.Errorf("%d sockets", sockets)
	}
	for i := range sockets {
		o.TCP = append(o.TCP, resolve.FDTCP+i)
		for n := range resolve.Queues {
			o.UDP = append(o.UDP, resolve.FDUDP+i*resolve.Queues+n)
		}
	}
	debug.SetMemoryLimit(memoryLimit)
	control := os.NewFile(resolve.FDControl, "control")
	// Whoever started this records it, then lets it go on; or is gone.
	if n, err := control.Read(make([]byte, 1)); n != 1 {
		return fmt.Errorf("whoever started the name server is gone: %w", err)
	}
	if o.Upstream > 0 || own {
		var err error
		if o.Dialer, err = dial.NewClient(resolve.FDDialer); err != nil {
			return err
		}
		if err := o.Dialer.Ping(); err != nil {
			return err
		}
	}
	return resolve.Serve(o, func() {
		control.Write([]byte{1}) //nolint:errcheck // nobody may be there any more who waits for it
	})
}
