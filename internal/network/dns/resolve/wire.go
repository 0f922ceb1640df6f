package resolve

import (
	"encoding/binary"
	"errors"
)

// The layout of a message, RFC 1035 section 4.1:
//
//	0  ID        2  flags        4  QDCOUNT   6  ANCOUNT   8  NSCOUNT   10 ARCOUNT
//	12 question, records of the answer, of the authority, additional records
const headerSize = 12

// Flags, and fields of the flags.
const (
	flagResponse   = 1 << 15 // QR
	maskOpcode     = 15 << 11
	flagAuthority  = 1 << 10 // AA
	flagTruncated  = 1 << 9  // TC
	flagRecursion  = 1 << 8  // RD
	flagAvailable  = 1 << 7  // RA
	flagUnverified = 1 << 4  // CD, RFC 4035
	flagVerified   = 1 << 5  // AD
	maskRCode      = 15
)

// Response codes.
const (
	rcodeSuccess        = 0
	rcodeFormatError    = 1
	rcodeServerFailure  = 2
	rcodeNameError      = 3 // NXDOMAIN
	rcodeNotImplemented = 4
	rcodeRefused        = 5
	rcodeBadVersion     = 16 // RFC 6891; its upper bits are in the OPT record
)

// Types and classes.
const (
	typeA      = 1
	typeNS     = 2
	typeCNAME  = 5
	typeSOA    = 6
	typePTR    = 12
	typeMX     = 15
	typeAAAA   = 28
	typeDNAME  = 39
	typeOPT    = 41
	typeDS     = 43
	typeDNSKEY = 48
	typeIXFR   = 251
	typeAXFR   = 252
	typeANY    = 255
	classIN    = 1
)

const (
	maxName  = 255 // bytes of a name in a message
	maxLabel = 63
	// maxPointers are in one name: it has no more labels than that, each of which a
	// pointer can lead to. Pointers to pointers, of which a message has room for
	// thousands, would have each name in it take as many steps (CVE-2024-8508).
	maxPointers = maxName / 2
	// plainUDP is what everybody can receive; ednsUDP passes every network unfragmented.
	plainUDP = 512
	ednsUDP  = 1232
	optSize  = 11 // of an OPT record without options
)

var errMalformed = errors.New("malformed DNS message")

func u16(b []byte, off int) uint16 { return binary.BigEndian.Uint16(b[off:]) }

// skipName returns the offset after the name at off. Pointers lead strictly
// back, to labels behind the header that end before the name that points there:
// so every name ends, and what is behind a record is no part of it.
func skipName(msg []byte, off int) (int, error) {
	end := -1 // after the first pointer
	size, pointers, start, bound := 0, 0, off, len(msg)
	for {
		if off >= bound {
			return 0, errMalformed
		}
		switch c := int(msg[off]); {
		case c == 0:
			if end < 0 {
				end = off + 1
			}
			return end, nil
		case c <= maxLabel:
			if size += 1 + c; size >= maxName {
				return 0, errMalformed
			}
			off += 1 + c
		case c >= 0xc0:
			if off+2 > bound {
				return 0, errMalformed
			}
			if end < 0 {
				end = off + 2
			}
			to := int(u16(msg, off)) & 0x3fff
			if pointers++; pointers > maxPointers || to >= start || to < headerSize {
				return 0, errMalformed
			}
			off, start, bound = to, to, start
		default:
			return 0, errMalformed
		}
	}
}

// A record is one resource record: where its parts are.
type record struct {
	kind, class uint16
	ttl         uint32
	data, end   int
}

// parseRecord reads the record at off, and walks through the names in those
// types that may hold compressed ones (RFC 3597 section 4).
func parseRecord(msg []byte, off int) (r record, err error) {
	if off, err = skipName(msg, off); err != nil {
		return r, err
	}
	if off+10 > len(msg) {
		return r, errMalformed
	}
	r.kind, r.class, r.ttl = u16(msg, off), u16(msg, off+2), binary.BigEndian.Uint32(msg[off+4:])
	r.data = off + 10
	r.end = r.data + int(u16(msg, off+8))
	if r.end > len(msg) {
		return r, errMalformed
	}
	at, names, tail := r.data, 0, 0
	switch r.kind {
	case typeA:
		tail = 4
	case typeAAAA:
		tail = 16
	case typeNS, typeCNAME, typePTR, typeDNAME:
		names = 1
	case typeMX:
		at, names = at+2, 1
	case typeSOA:
		names, tail = 2, 20
	default:
		return r, nil
	}
	for range names {
		if at, err = skipName(msg, at); err != nil {
			return r, err
		}
	}
	if at+tail != r.end {
		return r, errMalformed
	}
	return r, nil
}

// A query is the question of a message, and what whoever asks can receive.
type query struct {
	id, flags uint16
	// name is in lower case, its labels joined by dots; "" is the root.
	name        string
	kind, class uint16
	question    []byte // as it came
	edns        bool
	version     uint8
	secure      bool // DO: wants DNSSEC's records
	size        int  // bytes of the longest answer over UDP
}

// parseQuery reads what a workload sent. Without an error the code is
// rcodeSuccess, or what is to be answered, to as much of the query as was
// understood; an error means that nothing is to be answered.
func parseQuery(msg []byte) (q query, rcode int, err error) {
	if len(msg) < headerSize {
		return q, 0, errMalformed
	}
	q.id, q.flags, q.size = u16(msg, 0), u16(msg, 2), plainUDP
	if q.flags&flagResponse != 0 {
		return q, 0, errMalformed // answers to answers never end
	}
	if q.flags&maskOpcode != 0 {
		return q, rcodeNotImplemented, nil
	}
	additional := int(u16(msg, 10))
	if u16(msg, 4) != 1 || u16(msg, 6) != 0 || u16(msg, 8) != 0 || additional > 4 {
		return q, rcodeFormatError, nil
	}
	off, err := q.parseQuestion(msg)
	if err != nil {
		return q, rcodeFormatError, nil //nolint:nilerr // it is answered
	}
	for range additional {
		r, err := parseRecord(msg, off)
		if err != nil {
			return q, rcodeFormatError, nil //nolint:nilerr // it is answered
		}
		if r.kind == typeOPT {
			// RFC 6891 section 6.1: the root's, and one of them.
			if q.edns || r.data-off != optSize {
				return q, rcodeFormatError, nil
			}
			q.edns = true
			q.size = min(max(int(r.class), plainUDP), ednsUDP)
			q.version, q.secure = uint8(r.ttl>>16), r.ttl&(1<<15) != 0
		}
		off = r.end
	}
	if q.version != 0 {
		return q, rcodeBadVersion, nil
	}
	return q, rcodeSuccess, nil
}

// parseQuestion reads the question and returns the offset behind it.
func (q *query) parseQuestion(msg []byte) (int, error) {
	end, err := skipName(msg, headerSize)
	if err != nil || end+4 > len(msg) {
		return 0, errMalformed
	}
	q.name = presentation(msg[headerSize:end])
	q.kind, q.class = u16(msg, end), u16(msg, end+2)
	q.question = msg[headerSize : end+4]
	return end + 4, nil
}

// presentation returns an uncompressed name in lower case with dots. A dot or a
// NUL within a label becomes a NUL, which is in no name of a lease.
func presentation(name []byte) string {
	out := make([]byte, 0, len(name))
	for len(name) > 1 {
		n := int(name[0])
		if len(out) > 0 {
			out = append(out, '.')
		}
		for _, c := range name[1 : 1+n] {
			if c == '.' {
				c = 0
			}
			out = append(out, lower(c))
		}
		name = name[1+n:]
	}
	return string(out)
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// header appends the first part of an answer: the header, and the question as it
// was asked.
func (q *query) header(flags uint16, rcode int) []byte {
	b := make([]byte, headerSize, headerSize+len(q.question)+64)
	binary.BigEndian.PutUint16(b, q.id)
	flags |= flagResponse | flagAvailable | q.flags&(maskOpcode|flagRecursion|flagUnverified) | uint16(rcode&maskRCode)
	binary.BigEndian.PutUint16(b[2:], flags)
	if q.question != nil {
		b[5] = 1
	}
	return append(b, q.question...)
}

// finish appends the OPT record, if the query had one.
func (q *query) finish(b []byte, rcode int) []byte {
	if !q.edns {
		return b
	}
	b = append(b, 0, 0, typeOPT, ednsUDP>>8, ednsUDP&0xff, byte(rcode>>4), 0, 0, 0, 0, 0)
	if q.secure {
		b[len(b)-4] = 0x80 // RFC 3225: DO is copied
	}
	binary.BigEndian.PutUint16(b[10:], u16(b, 10)+1)
	return b
}

// failure is an answer that holds nothing but its code.
func (q *query) failure(rcode int) []byte { return q.finish(q.header(0, rcode), rcode) }

// fit returns an answer that is at most limit bytes long: as many records of the
// answer as go into it, and the mark that there are more. Some C libraries take
// what there is and do not ask again over TCP.
func (q *query) fit(msg []byte, limit int) []byte {
	if len(msg) <= limit {
		return msg
	}
	room := limit
	if q.edns {
		room -= optSize
	}
	end, count := headerSize+len(q.question), 0
	for n := int(u16(msg, 6)); count < n; count++ {
		r, err := parseRecord(msg, end)
		if err != nil || r.end > room {
			break
		}
		end = r.end
	}
	rcode := int(u16(msg, 2) & maskRCode)
	msg = msg[:end:end]
	binary.BigEndian.PutUint16(msg[2:], u16(msg, 2)|flagTruncated)
	binary.BigEndian.PutUint16(msg[6:], uint16(count))
	binary.BigEndian.PutUint32(msg[8:], 0)
	return q.finish(msg, rcode)
}
