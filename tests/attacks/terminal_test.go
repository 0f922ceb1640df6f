package attacks

import (
	"io"
	"testing"
	"time"
)

// readTerminal reads everything that a process writes to its terminal.
func readTerminal(t *testing.T, tty io.Reader) string {
	t.Helper()
	done := make(chan string)
	go func() {
		b, _ := io.ReadAll(tty) // EIO when the last process has closed its side
		done <- string(b)
	}()
	select {
	case s := <-done:
		return s
	case <-time.After(limit):
		t.Fatal("the terminal does not end")
		return ""
	}
}
