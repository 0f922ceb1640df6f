package protocol

import (
	"io"
	"sync"
)

// Relay copies between a and b until either ends, and closes both. It carries
// a stream over a connection: an end of input is an end of all, as a process
// that dies cannot say which it meant.
func Relay(a, b io.ReadWriteCloser) {
	var wg sync.WaitGroup
	pass := func(to io.WriteCloser, from io.ReadCloser) {
		io.Copy(to, from) // either side's error is the end
		to.Close()
		from.Close()
	}
	wg.Go(func() { pass(a, b) })
	wg.Go(func() { pass(b, a) })
	wg.Wait()
}
