// Command liar stands in the prober's place in a workload and tells, by $LIE, what
// no prober would.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/probe"
)

func main() {
	lie := os.Getenv("LIE")
	line, err := bufio.NewReader(os.Stdin).ReadSlice('\n')
	if err != nil {
		panic(err)
	}
	c, err := probe.ParseContext(line)
	if err != nil {
		panic(err)
	}
	if c.Host != nil || c.Declared != nil {
		panic("the workload is told about the host")
	}
	switch lie {
	case "silence":
		return
	case "death":
		fmt.Fprintln(os.Stderr, "\x1b[2Jfarewell")
		os.Exit(7)
	case "hang":
		wait()
	case "flood":
		for b := bytes.Repeat([]byte("held "), 10000); ; {
			if _, err := os.Stdout.Write(b); err != nil {
				return
			}
		}
	case "flood of lines":
		for {
			fmt.Println(strings.Repeat("held ", 100))
		}
	case "memory":
		for b := [][]byte{}; ; {
			one := make([]byte, 1<<20)
			for n := range one {
				one[n] = byte(n)
			}
			b = append(b, one)
			_ = b
		}
	}
	o := probe.Observe(c.Targets)
	switch lie {
	case "another word":
		o.Nonce = "guessed"
	case "another kernel":
		o.Kernel = "9.9.9"
	case "nothing tried":
		o.Tried = nil
	default:
		for _, t := range o.Tried {
			for n := range t.Calls {
				call, value := &t.Calls[n].Call, &t.Calls[n].Value
				switch {
				case lie == "namespace" && *call == "readlink(/proc/self/ns/pid)":
					*value = "pid:[4026539999]"
				case lie == "capabilities" && *call == "read(/proc/self/status, CapEff)":
					*value = "00000000000000ff"
				case lie == "limit" && *call == "read(pids.max)":
					*value = "1"
				case lie == "filter" && *call == "read(/proc/self/status, Seccomp)":
					*value = "2"
				}
			}
		}
	}
	b, err := o.Encode()
	if err != nil {
		panic(err)
	}
	switch lie {
	case "half":
		b = append(b[:len(b)/2], '\n')
	case "more":
		b = append([]byte(`{"format":5,`), b[1:]...)
	}
	os.Stdout.Write(b)
	wait()
}

// wait waits to be removed.
func wait() {
	for {
		time.Sleep(time.Hour)
	}
}
