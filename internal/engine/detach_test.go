package engine

import (
	"bytes"
	"testing"
)

func TestParseDetachKeys(t *testing.T) {
	tests := []struct {
		in   string
		want string
		ok   bool
	}{
		{"", "", true}, {DefaultDetachKeys, "\x10\x11", true}, {"a,b", "ab", true},
		{"ctrl-A", "\x01", true}, {"ctrl-@", "\x00", true}, {"ctrl-_", "\x1f", true}, {"ctrl-[,x", "\x1bx", true},
		{"ctrl-", "", false}, {"ab", "", false}, {"ctrl-1", "", false}, {"a,,b", "", false}, {"é", "", false},
	}
	for _, tt := range tests {
		got, err := ParseDetachKeys(tt.in)
		if string(got) != tt.want || (err == nil) != tt.ok {
			t.Errorf("%q: got %q, %v", tt.in, got, err)
		}
	}
}

// FuzzDetacher feeds a stream in two pieces and compares with a search in the
// whole.
func FuzzDetacher(f *testing.F) {
	f.Add([]byte("ab\x10\x10\x11c"), []byte("\x10\x11"), 3)
	f.Add([]byte("aabaabaac"), []byte("aabaac"), 5)
	f.Fuzz(func(t *testing.T, in, keys []byte, cut int) {
		if len(keys) > 64 || len(in) > 4096 {
			return
		}
		d := detacher{keys: keys}
		cut = min(max(cut, 0), len(in))
		out, detach := d.filter(bytes.Clone(in[:cut]))
		out = bytes.Clone(out)
		if !detach {
			var more []byte
			more, detach = d.filter(bytes.Clone(in[cut:]))
			out = append(out, more...)
		}
		if !detach {
			out = append(out, d.held()...)
		}
		want, wantDetach := in, false
		if len(keys) > 0 {
			if i := bytes.Index(in, keys); i >= 0 {
				want, wantDetach = in[:i], true
			}
		}
		if detach != wantDetach || !bytes.Equal(out, want) {
			t.Fatalf("got %q, %v, want %q, %v", out, detach, want, wantDetach)
		}
	})
}
