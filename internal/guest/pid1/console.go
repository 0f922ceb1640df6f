package pid1

import (
	"fmt"
	"os"
	"strings"
)

// maxLine bounds a line of the log: the kernel cuts records at about 1000 bytes.
const maxLine = 900

// Log writes a line to the kernel's log, which shows it on the console with the
// time since boot. There are few of them: each costs a slow serial line.
func Log(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if len(line) > maxLine {
		line = line[:maxLine]
	}
	line = "bulkhead-agent: " + strings.ReplaceAll(line, "\n", "; ") + "\n"
	// <3>, an error, is shown on the console also with "quiet" on the kernel's
	// command line (Documentation/ABI/testing/dev-kmsg).
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		os.Stderr.WriteString(line)
		return
	}
	defer f.Close()
	if _, err := f.WriteString("<3>" + line); err != nil {
		os.Stderr.WriteString(line)
	}
}
