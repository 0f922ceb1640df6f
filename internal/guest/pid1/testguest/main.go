// Command testguest is the init of a guest that tests package pid1. In place of
// the protocol it takes a command a line from the port and answers with a line:
// "ok" and a quoted text, or "error" and one.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/pid1"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/rtnl"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "child":
		err = child(os.Args[2])
	case len(os.Args) == 2 && os.Args[1] == pid1.AgentArgument:
		g := &guest{machine: pid1.NewMachine(), release: map[string][]func() error{}}
		err = pid1.Run(g.machine, g.serve)
	default:
		err = pid1.Init()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testguest:", err)
		os.Exit(1)
	}
}

type guest struct {
	machine  *pid1.Machine
	release  map[string][]func() error
	sessions int
	// The network namespaces of a workload.
	ns, hidden *os.File
}

func (g *guest) serve(_ context.Context, conn io.ReadWriteCloser) error {
	g.sessions++
	if _, err := fmt.Fprintf(conn, "hello %d\n", g.sessions); err != nil {
		return err
	}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		text, err := g.do(strings.Fields(lines.Text()))
		answer := "ok " + strconv.Quote(text)
		if err != nil {
			answer = "error " + strconv.Quote(err.Error())
		}
		if _, err := io.WriteString(conn, answer+"\n"); err != nil {
			return err
		}
		if strings.TrimSpace(lines.Text()) == "poweroff" {
			g.machine.PowerOff()
		}
	}
	return lines.Err()
}

func (g *guest) do(f []string) (string, error) {
	if len(f) == 0 {
		return "", errors.New("no command")
	}
	arg := func(n int) string {
		if n < len(f) {
			return f[n]
		}
		return ""
	}
	number := func(n int) int64 { v, _ := strconv.ParseInt(arg(n), 10, 64); return v }
	switch f[0] {
	case "read":
		b, err := os.ReadFile(arg(1))
		return string(b), err
	case "write":
		return "", os.WriteFile(arg(1), []byte(arg(2)), 0o644)
	case "list":
		names, err := filepath.Glob(arg(1))
		return strings.Join(names, " "), err
	case "image":
		dir, release, err := g.machine.Image(arg(1))
		if err == nil {
			g.release[arg(1)] = append(g.release[arg(1)], release)
		}
		return dir, err
	case "release":
		list := g.release[arg(1)]
		if len(list) == 0 {
			return "", errors.New("not in use")
		}
		g.release[arg(1)] = list[1:]
		return "", list[0]()
	case "data":
		upper, work, err := g.machine.Data(workload.ID(arg(1)), arg(2), uint32(number(3)), 65536)
		return upper + " " + work, err
	case "remove":
		return "", g.machine.RemoveData(workload.ID(arg(1)))
	case "give":
		return "", g.give(arg(1), arg(2))
	case "hide":
		return "", g.hide(arg(1), arg(2))
	case "back":
		return "", g.machine.Detach([]protocol.NIC{{Device: arg(1)}})
	case "links":
		if arg(1) == "hidden" {
			return links(g.hidden)
		}
		return links(nil)
	case "stat":
		var st unix.Stat_t
		err := unix.Stat(arg(1), &st)
		return fmt.Sprintf("%o %d %d", st.Mode, st.Uid, st.Gid), err
	case "clock":
		return "", g.machine.SetClock(time.Unix(0, number(1)))
	case "shift":
		return "", g.machine.ShiftClock(time.Duration(number(1)))
	case "now":
		return strconv.FormatInt(time.Now().UnixNano(), 10), nil
	case "reseed":
		return "", g.machine.Reseed([]byte(arg(1)))
	case "reap":
		return reap(int(number(1)))
	case "run":
		out, err := exec.Command("/proc/self/exe", "child", arg(1)).CombinedOutput()
		return string(out), err
	case "zombies":
		return zombies()
	case "poweroff":
		return "", nil
	case "kill":
		return "", syscall.Kill(int(number(1)), syscall.Signal(number(2)))
	case "pid":
		return strconv.Itoa(os.Getpid()), nil
	case "panic":
		go func() { panic("asked to") }()
		select {}
	case "exhaust": // an error of the runtime that nothing can recover
		m := map[int]int{}
		for n := range 8 {
			go func() {
				for {
					m[n]++
				}
			}()
		}
		select {}
	}
	return "", fmt.Errorf("unknown command %q", f[0])
}

// give gives a network device to a workload.
func (g *guest) give(device, name string) (err error) {
	if g.ns, err = rtnl.Make(); err != nil {
		return err
	}
	n := workload.NIC{Name: name, MAC: "02:42:ac:11:00:02", MTU: 1400}
	return g.machine.Attach([]protocol.NIC{{NIC: n, Device: device}}, g.ns)
}

// hide does what a workload may do to its interface.
func (g *guest) hide(name, hidden string) (err error) {
	if g.hidden, err = rtnl.Make(); err != nil {
		return err
	}
	c, err := rtnl.DialIn(g.ns)
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := c.Find(func(l rtnl.Link) bool { return l.Name == name })
	if err != nil {
		return err
	}
	return errors.Join(
		c.SetLink(l.Index, rtnl.Change{State: rtnl.Down}),
		c.SetLink(l.Index, rtnl.Change{Name: hidden, MAC: rtnl.MAC{2, 0x42, 0xac, 0x11, 0, 9}, MTU: 1300, Namespace: g.hidden}),
	)
}

// links lists the interfaces of a network namespace but loopback.
func links(ns *os.File) (string, error) {
	c, err := rtnl.DialIn(ns)
	if err != nil {
		return "", err
	}
	defer c.Close()
	all, err := c.Links()
	var out []string
	for _, l := range all {
		if !l.Loopback {
			out = append(out, fmt.Sprint(l.Name, " ", l.Permanent, " ", l.MAC, " ", l.MTU, " ", l.Up))
		}
	}
	return strings.Join(out, ", "), err
}

// reap runs n children that each leave an orphan and end with a status of their
// own, all at once, and checks that every status arrives.
func reap(n int) (string, error) {
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() {
			err := exec.Command("/proc/self/exe", "child", "orphan"+strconv.Itoa(i%100+1)).Run()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != i%100+1 {
				errs[i] = fmt.Errorf("child %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	return "", errors.Join(errs...)
}

// zombies lists processes that have ended and that nobody reaped.
func zombies() (string, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	var out []string
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err == nil && strings.Contains(string(b), ") Z ") {
			out = append(out, string(b))
		}
	}
	return strings.Join(out, ""), err
}

// child is a child of the agent.
func child(what string) error {
	status, orphan := strings.CutPrefix(what, "orphan")
	switch {
	case orphan:
		if err := exec.Command("/proc/self/exe", "child", "end").Start(); err != nil {
			return err
		}
		n, err := strconv.Atoi(status)
		if err != nil {
			return err
		}
		os.Exit(n)
	case what == "end":
		return nil
	case what == "pivot":
		return pivot()
	}
	return fmt.Errorf("unknown child %q", what)
}

// pivot does what makes a container's root.
func pivot() error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount private", err)
	}
	if err := unix.Mount("tmpfs", "/tmp", "tmpfs", 0, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	if err := unix.Chdir("/tmp"); err != nil {
		return os.NewSyscallError("chdir", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount2", err)
	}
	names, err := os.ReadDir("/")
	fmt.Print("names in the new root: ", len(names))
	return err
}
