// The runtime would read its cgroup's files at start, and keep them open.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command bulkhead-init is the first process of a workload that was started
// with --init. It runs the workload's program as its child, passes signals on
// to it, reaps whatever is orphaned in the workload, and ends as the program
// ends. It is mounted read-only at /dev/init and imports little, since it stays
// in memory.
//
//	bulkhead-init PROGRAM [ARG …]
package main

import (
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unsafe"
)

func main() {
	if len(os.Args) < 2 {
		fail(125, "no program to run")
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	pid := start(os.Args[1:])
	go forward(signals, pid)
	os.Exit(reap(pid))
}

// start runs the program. On the session's terminal it becomes the foreground
// process group, so that Ctrl-C reaches it and not the init.
func start(args []string) int {
	program := find(args[0])
	attr := &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setpgid: true}}
	if controls(0) {
		attr.Sys.Foreground, attr.Sys.Ctty = true, 0
	}
	pid, err := syscall.ForkExec(program, args, attr)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR):
		fail(127, "exec \""+args[0]+"\": "+err.Error())
	case err != nil:
		fail(126, "exec \""+args[0]+"\": "+err.Error())
	}
	return pid
}

// find looks for the program as execvp(3) does.
func find(name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	found := ""
	for dir := range strings.SplitSeq(os.Getenv("PATH"), ":") {
		if dir == "" {
			dir = "."
		}
		at := dir + "/" + name
		var st syscall.Stat_t
		if syscall.Stat(at, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFREG {
			continue
		}
		if st.Mode&0o111 != 0 {
			return at
		}
		if found == "" {
			found = at // there, but not executable: exec says so
		}
	}
	if found == "" {
		fail(127, "exec \""+name+"\": executable file not found in $PATH")
	}
	return found
}

// forward passes on every signal but those about the init itself.
func forward(signals <-chan os.Signal, pid int) {
	for s := range signals {
		switch s {
		case syscall.SIGCHLD, syscall.SIGURG, syscall.SIGPIPE, syscall.SIGTTIN, syscall.SIGTTOU:
		default:
			syscall.Kill(pid, s.(syscall.Signal))
		}
	}
}

// reap waits for every child that there is, until the program has ended.
func reap(pid int) int {
	for {
		var ws syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			fail(125, "wait: "+err.Error())
		case ended != pid:
		case ws.Signaled():
			return 128 + int(ws.Signal())
		case ws.Exited():
			return ws.ExitStatus()
		}
	}
}

// controls reports whether fd is the terminal of this session: a terminal that
// belongs to another one has no foreground of ours (ENOTTY).
func controls(fd uintptr) bool {
	var group int32
	_, _, e := syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCGPGRP, uintptr(unsafe.Pointer(&group)))
	return e == 0
}

func fail(code int, text string) {
	os.Stderr.WriteString("bulkhead-init: " + text + "\n")
	os.Exit(code)
}
