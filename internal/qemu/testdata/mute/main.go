// Command mute stands in QEMU's place: it greets, answers the first command, and
// from then on says nothing.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

func main() {
	const control = 3 // the descriptor that QEMU has for it
	f := os.NewFile(control, "qmp")
	fmt.Fprintln(f, `{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}`)
	var command struct{ ID string }
	if json.NewDecoder(bufio.NewReader(f)).Decode(&command) == nil {
		fmt.Fprintf(f, "{\"return\": {}, \"id\": %q}\n", command.ID)
	}
	time.Sleep(time.Hour) // it is killed
}
