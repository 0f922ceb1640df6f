package boundary

import (
	"os"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/tty"
)

// TerminalOf takes over the master of a pseudoterminal, nil for no terminal.
func TerminalOf(f *os.File) (Terminal, error) {
	if f == nil {
		return nil, nil
	}
	m, err := tty.NewMaster(f)
	if err != nil {
		return nil, err // and no Terminal that holds a nil pointer
	}
	return m, nil
}
