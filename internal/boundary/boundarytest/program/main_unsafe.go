// The runtime would keep its cgroup's files open, which "descriptors" counts.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command program is what boundarytest runs inside workloads. It is static and
// needs nothing from its root file system. Each command does one thing and
// reports it on standard output:
//
//	exit N             ends with status N
//	echo WORDS…        prints them
//	both               "to stdout" and "to stderr"
//	bytes N            N bytes, each the last eight bits of its position
//	cat                copies standard input
//	env, pwd, hostname print what they are named after
//	id                 user and group ID
//	kill SIGNAL        sends a signal to itself
//	pause              waits for ever
//	wait-signal SIGNAL says ready, names each signal, ends with status 7 at SIGNAL
//	terminal           the terminal's size, now and after each change, until input comes
//	read PATH          a file's contents
//	head PATH N        its first N bytes, in hexadecimal
//	clock              the time in seconds since 1970
//	write PATH TEXT    writes a file, and says ok
//	spawn N            starts N processes that pause, says how many it could, and pauses
//	clone3             the error of clone3(2) without arguments
//	allocate MB        uses memory, and says done
//	descriptors        the numbers of the open descriptors
//	interfaces         the network interfaces: name, MAC, MTU, addresses
//	dial ADDRESS       what the other side of a TCP connection says
//	serve PORT         says ready, and to each TCP connection where it comes from
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func main() {
	os.Exit(run(append(os.Args[1:], "", "")))
}

// head prints the first bytes of a file in hexadecimal.
func head(name, count string) int {
	n, err := strconv.Atoi(count)
	if err != nil {
		return report("", err)
	}
	f, err := os.Open(name)
	if err != nil {
		return report("", err)
	}
	defer f.Close()
	b := make([]byte, n)
	_, err = io.ReadFull(f, b)
	return report(fmt.Sprintf("%x", b), err)
}

func run(args []string) int {
	cmd, arg := args[0], args[1]
	n, _ := strconv.Atoi(arg)
	switch cmd {
	case "exit":
		return n
	case "echo":
		fmt.Println(strings.TrimRight(strings.Join(args[1:], " "), " "))
	case "both":
		fmt.Fprintln(os.Stdout, "to stdout")
		fmt.Fprintln(os.Stderr, "to stderr")
	case "bytes":
		return bytes(n)
	case "cat":
		_, err := io.Copy(os.Stdout, os.Stdin)
		return report("", err)
	case "env":
		fmt.Println(strings.Join(os.Environ(), "\n"))
	case "pwd":
		wd, err := os.Getwd()
		return report(wd, err)
	case "hostname":
		name, err := os.Hostname()
		return report(name, err)
	case "id":
		fmt.Println(os.Getuid(), os.Getgid())
	case "kill":
		sig, err := workload.ParseSignal(arg)
		if err == nil {
			err = syscall.Kill(os.Getpid(), sig)
		}
		if err == nil {
			pause() // until it arrives
		}
		return report("", err)
	case "pause":
		pause()
	case "wait-signal":
		return waitSignal(arg)
	case "terminal":
		return terminal()
	case "read":
		b, err := os.ReadFile(arg)
		return report(string(b), err)
	case "head":
		return head(arg, args[2])
	case "clock":
		fmt.Println(time.Now().Unix())
	case "write":
		return report("ok", os.WriteFile(arg, []byte(args[2]), 0o644))
	case "spawn":
		spawn(n)
	case "clone3":
		const clone3 = 435 // on every architecture
		_, _, errno := syscall.RawSyscall(clone3, 0, 0, 0)
		fmt.Println(errno)
	case "allocate":
		return allocate(n)
	case "descriptors":
		return descriptors()
	case "interfaces":
		return interfaces()
	case "dial":
		return dial(arg)
	case "serve":
		return serve(arg)
	default:
		return report("", fmt.Errorf("unknown command %q", cmd))
	}
	return 0
}

func report(text string, err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if text != "" {
		fmt.Println(text)
	}
	return 0
}

func pause() {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	for {
		time.Sleep(time.Hour) // the runtime takes an endless wait for a deadlock
	}
}

func bytes(n int) int {
	buf := make([]byte, 1<<16)
	for i := range buf {
		buf[i] = byte(i)
	}
	for n > 0 {
		k := min(n, len(buf))
		if _, err := os.Stdout.Write(buf[:k]); err != nil {
			return report("", err)
		}
		n -= k
	}
	return 0
}

func waitSignal(last string) int {
	want, err := workload.ParseSignal(last)
	if err != nil {
		return report("", err)
	}
	c := make(chan os.Signal, 64)
	signal.Notify(c)
	fmt.Println("ready")
	for s := range c {
		if s == syscall.SIGURG {
			continue // the Go runtime's own
		}
		fmt.Println("signal", int(s.(syscall.Signal)))
		if s == want {
			return 7
		}
	}
	return 1
}

func terminal() int {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	end := make(chan struct{})
	go func() {
		os.Stdin.Read(make([]byte, 1))
		close(end)
	}()
	for {
		var ws struct{ rows, cols, x, y uint16 }
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, 0, syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&ws)))
		if errno != 0 {
			return report("", errno)
		}
		fmt.Println(ws.rows, ws.cols)
		select {
		case <-changed:
		case <-end:
			return 0
		}
	}
}

func spawn(n int) {
	started := 0
	for range n {
		if err := exec.Command("/proc/self/exe", "pause").Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			break
		}
		started++
	}
	fmt.Println("spawned", started)
	pause()
}

func allocate(mb int) int {
	if err := lockProgram(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	var keep [][]byte
	for range mb {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		keep = append(keep, b)
	}
	fmt.Println("done", len(keep))
	return 0
}

// lockProgram keeps the program's own file in memory. Where its pages count towards the
// limit, a kernel first takes those back, and reads them again as the program needs
// them, and ends nothing as long as it finds one. In an emulated machine that took
// minutes at times.
func lockProgram() error {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.HasSuffix(line, " "+self+"\n") {
			continue
		}
		var from, to uintptr
		if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err != nil {
			return err
		}
		if _, _, errno := syscall.Syscall(syscall.SYS_MLOCK, from, to-from, 0); errno != 0 {
			return os.NewSyscallError("mlock", errno)
		}
	}
	return nil
}

func descriptors() int {
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return report("", err)
	}
	var open []string
	for _, e := range d {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		// Not the directory itself, nor the runtime's poller.
		if err == nil && !strings.HasPrefix(to, "anon_inode:[event") && !strings.HasSuffix(to, "/fd") {
			open = append(open, e.Name())
		}
	}
	sort.Strings(open)
	fmt.Println(strings.Join(open, " "))
	return 0
}
