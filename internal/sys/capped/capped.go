// Package capped keeps the beginning of what somebody writes who is not to be
// stopped by it, and not to use up memory either.
package capped

import "bytes"

// Buffer keeps the first Max bytes and forgets the rest. Writing never fails, so
// that the writer goes on. It is for one goroutine at a time.
//
// It has no other way in than Write: an embedded bytes.Buffer would bring its
// ReadFrom, which io.Copy, and with it exec.Cmd, prefers, and which keeps all.
type Buffer struct {
	Max  int // bytes; a negative number is like 0
	kept bytes.Buffer
}

// Write keeps what there is room for, and reports all of p as written.
func (b *Buffer) Write(p []byte) (int, error) {
	b.kept.Write(p[:min(len(p), max(0, b.Max-b.kept.Len()))])
	return len(p), nil
}

// Bytes are what was kept. They are valid until the next Write.
func (b *Buffer) Bytes() []byte { return b.kept.Bytes() }

// String is what was kept.
func (b *Buffer) String() string { return b.kept.String() }
