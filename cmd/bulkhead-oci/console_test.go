package main

import (
	"io"
	"net"
	"os"
	"syscall"
)

// readTerminal receives a terminal and returns what is written on it until its
// other side is closed.
func readTerminal(l *net.UnixListener) string {
	conn, err := l.AcceptUnix()
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	data, oob := make([]byte, 4096), make([]byte, 4096)
	_, n, _, _, err := conn.ReadMsgUnix(data, oob)
	if err != nil {
		return err.Error()
	}
	msgs, err := syscall.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return "no descriptor came"
	}
	fds, err := syscall.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return "no descriptor came"
	}
	f := os.NewFile(uintptr(fds[0]), "terminal")
	defer f.Close()
	out, _ := io.ReadAll(f) // ends with EIO
	return string(out)
}
