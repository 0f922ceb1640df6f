package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sizes of linux/netlink.h and linux/rtnetlink.h, in bytes.
const (
	headerSize    = 16 // nlmsghdr
	attrSize      = 4  // nlattr
	linkSize      = 16 // ifinfomsg
	addressSize   = 8  // ifaddrmsg
	routeSize     = 12 // rtmsg
	attrTypes     = 0x3fff
	maxAttributes = 1 << 16
)

var errMalformed = errors.New("rtnetlink: malformed message")

// answer reads one datagram of the answer to request seq. over tells that no
// other follows.
func answer(b []byte, seq uint32, each func(kind uint16, body []byte) error) (over bool, err error) {
	for len(b) > 0 {
		if len(b) < headerSize {
			return false, errMalformed
		}
		length := binary.NativeEndian.Uint32(b)
		if length < headerSize || uint64(length) > uint64(len(b)) {
			return false, errMalformed
		}
		kind, its := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:])
		flags, body := binary.NativeEndian.Uint16(b[6:]), b[headerSize:length]
		b = b[min(align(int(length)), len(b)):]
		if its != seq {
			continue // of a request that was given up
		}
		switch kind {
		case unix.NLMSG_NOOP:
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			return true, refusal(body, flags)
		default:
			if each == nil {
				continue
			}
			if err := each(kind, body); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// refusal is the error of NLMSG_ERROR and NLMSG_DONE, nil for none, with the
// kernel's own words where there are some.
func refusal(body []byte, flags uint16) error {
	if len(body) < 4 {
		return errMalformed
	}
	n := int32(binary.NativeEndian.Uint32(body))
	if n == 0 {
		return nil
	}
	if n > 0 || n < -4095 {
		return errMalformed
	}
	errno := syscall.Errno(-n)
	if flags&unix.NLM_F_ACK_TLVS == 0 || len(body) < 4+headerSize {
		return errno
	}
	skip := 4 + headerSize
	if flags&unix.NLM_F_CAPPED == 0 {
		skip = 4 + align(int(min(binary.NativeEndian.Uint32(body[4:]), maxAttributes))) // all of the request comes back
	}
	if skip > len(body) {
		return errno
	}
	words := ""
	attributes(body[skip:], func(kind uint16, value []byte) { //nolint:errcheck // the number is what counts
		if kind == unix.NLMSGERR_ATTR_MSG {
			words = text(value)
		}
	})
	if words == "" {
		return errno
	}
	return fmt.Errorf("%w (%s)", errno, words)
}

// attributes calls f for each attribute of b.
func attributes(b []byte, f func(kind uint16, value []byte)) error {
	for len(b) >= attrSize {
		length := int(binary.NativeEndian.Uint16(b))
		if length < attrSize || length > len(b) {
			return errMalformed
		}
		f(binary.NativeEndian.Uint16(b[2:])&attrTypes, b[attrSize:length])
		b = b[min(align(length), len(b)):]
	}
	if len(b) != 0 {
		return errMalformed
	}
	return nil
}

// attribute appends one.
func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrSize+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, align(len(value))-len(value))...)
}

func number(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// align rounds up as NLMSG_ALIGN and RTA_ALIGN do.
func align(n int) int { return (n + 3) &^ 3 }
