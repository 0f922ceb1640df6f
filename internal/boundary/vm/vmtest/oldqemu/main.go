// Command oldqemu pretends to be a QEMU that is too old: it says so on the
// control socket and when it is asked for its version.
package main

import (
	"fmt"
	"os"
	"time"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println("QEMU emulator version 5.2.0 (Debian 1:5.2+dfsg-11)")
		return
	}
	const control = 3 // the descriptor that bulkhead gives QEMU for it
	fmt.Fprintln(os.NewFile(control, "qmp"), `{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 5}, "package": ""}, "capabilities": ["oob"]}}`)
	time.Sleep(time.Minute) // it is killed
}
