package rtnl

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// header begins a message of the kernel's.
func header(kind, flags uint16, seq uint32, body []byte) []byte {
	b := make([]byte, headerSize)
	binary.NativeEndian.PutUint32(b, uint32(headerSize+len(body)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], flags)
	binary.NativeEndian.PutUint32(b[8:], seq)
	return append(b, body...)
}

// FuzzAnswer feeds what the kernel could never say.
func FuzzAnswer(f *testing.F) {
	link := attribute(attribute(make([]byte, linkSize), unix.IFLA_IFNAME, []byte("eth0\x00")), unix.IFLA_ADDRESS, []byte{2, 0, 0, 0, 0, 1})
	link = attribute(attribute(link, unix.IFLA_MTU, number(1500)), unix.IFLA_PERM_ADDRESS, []byte{2, 0, 0, 0, 0, 1})
	denied := number(uint32(0xffffffff)) // -1
	words := attribute(append(denied, make([]byte, headerSize)...), unix.NLMSGERR_ATTR_MSG, []byte("no\x00"))
	f.Add(header(unix.RTM_NEWLINK, 0, 1, link))
	f.Add(header(unix.NLMSG_DONE, 0, 1, number(0)))
	f.Add(header(unix.NLMSG_ERROR, 0, 1, denied))
	f.Add(header(unix.NLMSG_ERROR, unix.NLM_F_ACK_TLVS|unix.NLM_F_CAPPED, 1, words))
	f.Add(header(unix.NLMSG_ERROR, unix.NLM_F_ACK_TLVS, 1, words))
	f.Add(append(header(unix.RTM_NEWLINK, 0, 2, link[:20]), header(unix.RTM_NEWLINK, 0, 1, link[:19])...))
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		answer(b, 1, func(_ uint16, body []byte) error { //nolint:errcheck // only that it returns
			l, err := parseLink(body)
			if err == nil && len(l.Name) > len(b) {
				t.Errorf("name %q", l.Name)
			}
			return err
		})
	})
}

func TestAnswer(t *testing.T) {
	denied := number(uint32(0xffffffff)) // -1
	words := attribute(append(number(0xffffffff), make([]byte, headerSize)...), unix.NLMSGERR_ATTR_MSG, []byte("because\x00"))
	for name, c := range map[string]struct {
		b    []byte
		over bool
		err  string
	}{
		"done":             {header(unix.NLMSG_DONE, 0, 1, number(0)), true, ""},
		"acknowledged":     {header(unix.NLMSG_ERROR, 0, 1, append(number(0), make([]byte, headerSize)...)), true, ""},
		"refused":          {header(unix.NLMSG_ERROR, 0, 1, denied), true, "operation not permitted"},
		"with words":       {header(unix.NLMSG_ERROR, unix.NLM_F_ACK_TLVS|unix.NLM_F_CAPPED, 1, words), true, "operation not permitted (because)"},
		"of another":       {header(unix.NLMSG_ERROR, 0, 7, denied), false, ""},
		"short header":     {make([]byte, 7), false, errMalformed.Error()},
		"length too small": {make([]byte, 16), false, errMalformed.Error()},
		"length too large": {header(unix.NLMSG_DONE, 0, 1, number(0))[:18], false, errMalformed.Error()},
		"no number":        {header(unix.NLMSG_ERROR, 0, 1, nil), true, errMalformed.Error()},
		"positive":         {header(unix.NLMSG_ERROR, 0, 1, number(5)), true, errMalformed.Error()},
	} {
		over, err := answer(c.b, 1, nil)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if over != c.over || text != c.err {
			t.Errorf("%s: got %v, %q", name, over, text)
		}
	}
}
