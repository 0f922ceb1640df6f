package engine

import (
	"bytes"
	"fmt"
	"strings"
)

// DefaultDetachKeys is what the command line uses when nothing else was said.
const DefaultDetachKeys = "ctrl-p,ctrl-q"

// ParseDetachKeys reads the syntax of Docker's --detach-keys: a comma-separated
// list of single characters and ctrl-X, where X is a letter or one of @[\]^_ .
// "" is no sequence at all. DefaultDetachKeys is the usual choice.
func ParseDetachKeys(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	var out []byte
	for key := range strings.SplitSeq(s, ",") {
		rest, ctrl := strings.CutPrefix(key, "ctrl-")
		if len(rest) != 1 || rest[0] >= 0x80 {
			return nil, fmt.Errorf("detach keys %q: %q is neither a character nor ctrl- and a character", s, key)
		}
		c := rest[0]
		if ctrl {
			switch {
			case c >= 'a' && c <= 'z':
				c -= 'a' - 1
			case c >= 'A' && c <= 'Z' || strings.IndexByte(`@[\]^_`, c) >= 0:
				c -= '@'
			default:
				return nil, fmt.Errorf("detach keys %q: there is no %q", s, key)
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// detacher finds the detach keys in a stream of input. While the last bytes
// could be their beginning it holds them back.
type detacher struct {
	keys []byte
	n    int // how many of keys the stream ends with
}

// filter returns what of the stream may go on, and whether the keys are
// complete. Its result may alias b.
func (d *detacher) filter(b []byte) (out []byte, detach bool) {
	if len(d.keys) == 0 {
		return b, false
	}
	for _, c := range b {
		if d.n == 0 && c != d.keys[0] {
			out = append(out, c)
			continue
		}
		// The longest beginning of keys that the stream, with c, ends with.
		tail := append(bytes.Clone(d.keys[:d.n]), c)
		n := len(tail)
		for n > 0 && (n > len(d.keys) || !bytes.Equal(tail[len(tail)-n:], d.keys[:n])) {
			n--
		}
		out = append(out, tail[:len(tail)-n]...)
		if d.n = n; n == len(d.keys) {
			d.n = 0
			return out, true
		}
	}
	return out, false
}

// held returns what was held back, at the end of the stream.
func (d *detacher) held() []byte {
	h := d.keys[:d.n]
	d.n = 0
	return h
}
