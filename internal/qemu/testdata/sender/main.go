// Command sender stands in QEMU's place, as if somebody had taken QEMU over, and
// sends its descriptors over the socket that the kernel's argument "over=" names: from
// then on they lie in a queue, of which nobody may ever read. It says on standard
// error what came of it.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

const control, agent, console = 3, 4, 5 // as QEMU has them

func main() {
	f := os.NewFile(control, "qmp")
	fmt.Fprintln(f, `{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}`)
	var command struct{ ID string }
	if json.NewDecoder(bufio.NewReader(f)).Decode(&command) == nil {
		fmt.Fprintf(f, "{\"return\": {}, \"id\": %q}\n", command.ID)
	}
	over := agent
	if strings.Contains(strings.Join(os.Args, " "), "over=control") {
		over = control
		fmt.Fprintln(f, "no JSON")         // the supervisor reads no more
		time.Sleep(300 * time.Millisecond) // and has seen it
	}
	err := syscall.Sendmsg(over, []byte("x"), syscall.UnixRights(2, control, agent, console), nil, 0)
	fmt.Fprintln(os.Stderr, "sent:", err)
	time.Sleep(time.Hour) // it is killed
}
