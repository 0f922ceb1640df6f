package unpack

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Compression is how a layer was compressed, told from its first bytes.
type Compression string

// The compressions that layers have. Others are refused by name.
const (
	Plain Compression = ""
	Gzip  Compression = "gzip"
	Zstd  Compression = "zstd"
)

var magics = []struct {
	name  Compression
	magic []byte
}{
	{Gzip, []byte{0x1f, 0x8b}},
	{Zstd, []byte{0x28, 0xb5, 0x2f, 0xfd}},
	{"xz", []byte{0xfd, '7', 'z', 'X', 'Z', 0}},
	{"bzip2", []byte("BZh")},
}

// Detect names the compression of a stream that begins with head.
func Detect(head []byte) Compression {
	for _, m := range magics {
		if bytes.HasPrefix(head, m.magic) {
			return m.name
		}
	}
	// A zstd stream may begin with a skippable frame (RFC 8878, 3.1.2).
	if len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}) {
		return Zstd
	}
	return Plain
}

// Decompress returns the plain form of r, whatever r's compression. The caller
// closes it, which does not close r. Memory is bounded: zstd windows above
// 128 MiB are refused, which is what zstd -19 --long=27 writes at most.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	br := bufio.NewReaderSize(r, 256<<10)
	head, err := br.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, Plain, err
	}
	switch c := Detect(head); c {
	case Plain:
		return io.NopCloser(br), c, nil
	case Gzip:
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, c, dataError(err)
		}
		return z, c, nil
	case Zstd:
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, c, dataError(err)
		}
		return z.IOReadCloser(), c, nil
	default:
		return nil, c, fmt.Errorf("%w: %s compression is not supported, only gzip and zstd", ErrHostile, c)
	}
}

// DecompressWithin is Decompress for a stream that has to stay within limits.Bytes
// and limits.Ratio.
func DecompressWithin(r io.Reader, limits Limits) (io.ReadCloser, error) {
	m := &meter{limits: limits.withDefaults()}
	z, _, err := Decompress(countIn{m, r})
	if err != nil {
		return nil, err
	}
	return metered{z, m}, nil
}

type metered struct {
	io.ReadCloser
	m *meter
}

func (z metered) Read(p []byte) (int, error) {
	n, err := z.ReadCloser.Read(p)
	if limitErr := z.m.add(n); limitErr != nil {
		return 0, limitErr
	}
	if err != nil && err != io.EOF { //nolint:errorlint // readers return it bare
		err = dataError(err)
	}
	return n, err
}

// Interruptible returns a reader of r that fails once ctx is done, even while r
// brings nothing. One goroutine then waits for r until that brings something or
// ends.
func Interruptible(ctx context.Context, r io.Reader) io.Reader {
	out, in := io.Pipe()
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{in}, struct{ io.Reader }{r}, make([]byte, blockSize))
		in.CloseWithError(err)
	}()
	context.AfterFunc(ctx, func() { in.CloseWithError(&sourceError{ctx.Err()}) })
	return out
}

// sourceError marks an error of the reader below a decompressor, so that it is
// not taken for one of the data.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// streamError names the end of a stream in the middle of something. Other
// errors stay what they are.
func streamError(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrTruncated) {
		return fmt.Errorf("%w: it ends in the middle", ErrTruncated)
	}
	return err
}

// dataError is streamError for what a decompressor returns: all that does not
// come from below it is the data's fault.
func dataError(err error) error {
	var source *sourceError
	if err == nil || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &source) {
		return streamError(err)
	}
	return fmt.Errorf("%w: damaged compressed data: %s", ErrHostile, err)
}

// meter counts compressed and plain bytes and stops a stream that grows beyond
// its limits while it is read, long before it has filled a disk.
type meter struct {
	limits Limits
	in     int64
	out    int64
}

type countIn struct {
	m *meter
	r io.Reader
}

func (c countIn) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.m.in += int64(n)
	if err != nil && err != io.EOF { //nolint:errorlint // readers return it bare
		err = &sourceError{err}
	}
	return n, err
}

func (m *meter) add(n int) error {
	m.out += int64(n)
	if m.out > m.limits.Bytes {
		return fmt.Errorf("%w: the archive is longer than %s", ErrLimit, bytesText(m.limits.Bytes))
	}
	if m.out > m.limits.RatioFloor && m.in > 0 && m.out/m.in > m.limits.Ratio {
		return fmt.Errorf("%w: compressed more than %d to 1, this is a compression bomb", ErrLimit, m.limits.Ratio)
	}
	return nil
}

// plainStream decompresses, meters and hashes a layer in a goroutine of its
// own, so that this overlaps with the making of files.
//
//	r ──> count ──> decompress ──> meter, SHA-256 ──blocks──> Read
//
// Close ends the goroutine and waits for it.
type plainStream struct {
	blocks chan block
	free   chan []byte
	stop   chan struct{}
	once   sync.Once
	done   sync.WaitGroup
	sum    hash.Hash // owned by the goroutine until Read has returned io.EOF
	rest   []byte
	whole  []byte
	err    error
}

type block struct {
	p   []byte
	err error
}

const (
	blockSize  = 256 << 10
	blockCount = 4
)

func newPlainStream(ctx context.Context, r io.Reader, limits Limits) *plainStream {
	s := &plainStream{
		blocks: make(chan block, blockCount),
		free:   make(chan []byte, blockCount),
		stop:   make(chan struct{}),
		sum:    sha256.New(),
	}
	for range blockCount {
		s.free <- make([]byte, blockSize)
	}
	s.done.Add(1)
	go func() {
		defer s.done.Done()
		defer close(s.blocks)
		s.fill(ctx, r, &meter{limits: limits})
	}()
	return s
}

func (s *plainStream) fill(ctx context.Context, r io.Reader, m *meter) {
	z, _, err := Decompress(countIn{m, r})
	if err != nil {
		s.blocks <- block{err: err} // room for it: nothing was sent yet
		return
	}
	defer z.Close()
	for {
		var buf []byte
		select {
		case buf = <-s.free:
		case <-s.stop:
			return
		case <-ctx.Done():
			err = ctx.Err()
		}
		n := 0
		if err == nil {
			n, err = readBlock(z, buf)
		}
		if limitErr := m.add(n); limitErr != nil {
			n, err = 0, limitErr
		}
		s.sum.Write(buf[:n])
		select {
		case s.blocks <- block{buf[:n], err}:
		case <-s.stop:
			return
		}
		if err != nil {
			return
		}
	}
}

// readBlock fills buf and returns fewer bytes only with an error.
func readBlock(z io.Reader, buf []byte) (n int, err error) {
	for err == nil && n < len(buf) {
		var k int
		k, err = z.Read(buf[n:])
		n += k
	}
	if err != nil && err != io.EOF { //nolint:errorlint // readers return it bare
		err = dataError(err)
	}
	return n, err
}

// Read implements io.Reader.
func (s *plainStream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		if s.whole != nil {
			s.free <- s.whole[:cap(s.whole)]
			s.whole = nil
		}
		b, ok := <-s.blocks
		if !ok {
			s.err = io.ErrClosedPipe
			continue
		}
		s.whole, s.rest, s.err = b.p, b.p, b.err
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Close ends the goroutine and waits for it. The reader that it reads from
// must return, which readers bound to the context do.
func (s *plainStream) Close() {
	s.once.Do(func() { close(s.stop) })
	s.done.Wait()
}
