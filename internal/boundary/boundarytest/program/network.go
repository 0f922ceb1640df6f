package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// patience is how long a call may take that goes nowhere.
const patience = 3 * time.Second

// interfaces prints each interface but loopback: name, MAC, MTU, addresses but
// those of the link alone.
func interfaces() int {
	all, err := net.Interfaces()
	if err != nil {
		return report("", err)
	}
	for _, i := range all {
		if i.Flags&(net.FlagLoopback|net.FlagUp) != net.FlagUp {
			continue // the kernel adds some, of tunnels, that are down
		}
		addrs, err := i.Addrs()
		if err != nil {
			return report("", err)
		}
		line := fmt.Sprintf("%s %s %d", i.Name, i.HardwareAddr, i.MTU)
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
				line += " " + n.String()
			}
		}
		fmt.Println(line)
	}
	return 0
}

// dial connects and prints what the other side says.
func dial(address string) int {
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return report("", err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	b, err := io.ReadAll(c)
	return report(string(b), err)
}

// serve says ready, and tells everybody who connects where he comes from.
func serve(port string) int {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return report("", err)
	}
	fmt.Fprintln(os.Stdout, "ready")
	for {
		c, err := l.Accept()
		if err != nil {
			return report("", err)
		}
		a, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		io.WriteString(c, strings.TrimPrefix(a, "::ffff:"))
		c.Close()
	}
}
