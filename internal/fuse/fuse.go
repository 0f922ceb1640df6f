// Package fuse describes the messages of the kernel's FUSE protocol (version
// 7.31 and later, include/uapi/linux/fuse.h) as far as both ends of a volume
// need them: how long a message is, and where the next one begins.
//
//	request:  len u32, opcode u32, unique u64, nodeid u64, uid u32, gid u32, pid u32, extensions u16, padding u16, body
//	reply:    len u32, error i32, unique u64, body
//
// /dev/fuse keeps messages apart by itself; on a byte stream their lengths do.
// All numbers are little-endian: the order of both architectures that we run
// on, which host and guest share.
package fuse

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Sizes of the headers, in bytes.
const (
	InHeaderSize  = 40
	OutHeaderSize = 16
)

// MaxTransfer is the most data that one read or write carries, in bytes. It is
// what 32 pages hold, the kernel's limit where nothing else is negotiated.
const MaxTransfer = 128 << 10

// The largest messages that either end accepts: data, the widest fixed part,
// and for requests two names (a rename has two of 255 bytes, a symlink one
// target of 4095) or an extended attribute of 64 KiB with its name.
const (
	MaxRequest = InHeaderSize + 256 + MaxTransfer
	MaxReply   = OutHeaderSize + 256 + MaxTransfer
)

// Opcodes of requests.
const (
	Lookup        = 1
	Forget        = 2
	Getattr       = 3
	Setattr       = 4
	Readlink      = 5
	Symlink       = 6
	Mknod         = 8
	Mkdir         = 9
	Unlink        = 10
	Rmdir         = 11
	Rename        = 12
	Link          = 13
	Open          = 14
	Read          = 15
	Write         = 16
	Statfs        = 17
	Release       = 18
	Fsync         = 20
	Setxattr      = 21
	Getxattr      = 22
	Listxattr     = 23
	Removexattr   = 24
	Flush         = 25
	Init          = 26
	Opendir       = 27
	Readdir       = 28
	Releasedir    = 29
	Fsyncdir      = 30
	Create        = 35
	Interrupt     = 36
	Destroy       = 38
	Poll          = 40
	BatchForget   = 42
	Fallocate     = 43
	Readdirplus   = 44
	Rename2       = 45
	Lseek         = 46
	CopyFileRange = 47
)

// RootID is the node ID of the volume's root.
const RootID = 1

// Flags of INIT. All others stay off: there is no writeback cache, so that the
// host sees what the guest wrote, and locks are the guest's own.
const (
	asyncRead       = 1 << 0
	bigWrites       = 1 << 5
	autoInvalData   = 1 << 12
	doReaddirplus   = 1 << 13
	readdirplusAuto = 1 << 14
	parallelDirops  = 1 << 18
	// The guest's kernel asks for access control lists, and keeps to them.
	posixACL   = 1 << 20
	abortError = 1 << 21
	// The host's kernel removes setuid and setgid bits on every write, truncate
	// and chown of the server, whose capabilities are those of a user namespace,
	// so the guest's need not ask for them each time.
	handleKillprivV2 = 1 << 28

	wanted = asyncRead | bigWrites | autoInvalData | doReaddirplus | readdirplusAuto | parallelDirops | posixACL | abortError | handleKillprivV2
)

// InitReply is the body of the reply to an INIT request with these fields (struct
// fuse_init_in): the same whoever gives it, so that what one has begun another can
// go on with. ok is false for a kernel before 7.31 (Linux 5.4).
func InitReply(major, minor, readahead, flags uint32) (body []uint32, ok bool) {
	if major < 7 || major == 7 && minor < 31 {
		return nil, false
	}
	return []uint32{
		7, 31, min(readahead, MaxTransfer), flags & wanted,
		12 | 9<<16,     // max_background, congestion_threshold: the kernel's defaults
		MaxTransfer, 1, // max_write, time granularity in ns
		0, 0, 0, 0, 0, 0, 0, 0, 0, // max_pages, map_alignment; flags2; unused
	}, true
}

// ErrMalformed says that a stream does not carry FUSE messages. Nothing after
// it can be understood.
var ErrMalformed = errors.New("malformed FUSE message")

// InHeader is the fixed part of a request.
type InHeader struct {
	Len, Opcode    uint32
	Unique, NodeID uint64
	UID, GID, PID  uint32
}

// ParseInHeader reads the header of a request; b holds at least InHeaderSize
// bytes.
func ParseInHeader(b []byte) InHeader {
	le := binary.LittleEndian
	return InHeader{
		Len: le.Uint32(b), Opcode: le.Uint32(b[4:]),
		Unique: le.Uint64(b[8:]), NodeID: le.Uint64(b[16:]),
		UID: le.Uint32(b[24:]), GID: le.Uint32(b[28:]), PID: le.Uint32(b[32:]),
	}
}

// ReadRequest reads one request from a stream into buf, which has room for
// MaxRequest bytes, and returns its length. The error is io.EOF if the stream
// ends between messages, and wraps ErrMalformed for a length that no request
// has.
func ReadRequest(r io.Reader, buf []byte) (int, error) {
	return readMessage(r, buf, InHeaderSize, MaxRequest)
}

// ReadReply reads one reply likewise; buf has room for MaxReply bytes.
func ReadReply(r io.Reader, buf []byte) (int, error) {
	return readMessage(r, buf, OutHeaderSize, MaxReply)
}

func readMessage(r io.Reader, buf []byte, least, most int) (int, error) {
	if _, err := io.ReadFull(r, buf[:4]); err != nil {
		return 0, err
	}
	n := binary.LittleEndian.Uint32(buf)
	if n < uint32(least) || n > uint32(most) {
		return 0, fmt.Errorf("%w: %d bytes long", ErrMalformed, n)
	}
	if _, err := io.ReadFull(r, buf[4:n]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, err
	}
	return int(n), nil
}
