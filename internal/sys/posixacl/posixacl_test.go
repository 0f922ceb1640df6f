package posixacl

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

func TestTranslate(t *testing.T) {
	// Version 2; owner rw, user 1000 r, user 7 none, group r, group 7 w, mask rw, others none.
	const (
		before = "02000000" + "01000600ffffffff" + "02000400e8030000" + "0200000007000000" + "04000400ffffffff" + "0800020007000000" + "10000600ffffffff" + "20000000ffffffff"
		after  = "02000000" + "01000600ffffffff" + "02000400e9030000" + "04000400ffffffff" + "10000600ffffffff" + "20000000ffffffff"
	)
	list, err := hex.DecodeString(before)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Translate(bytes.Clone(list), func(id uint32) (uint32, bool, error) { return id + 1, id != 7, nil })
	if err != nil || hex.EncodeToString(got) != after {
		t.Errorf("got %x, %v\nwant %s", got, err, after)
	}
	no := errors.New("no")
	if got, err := Translate(bytes.Clone(list), func(uint32) (uint32, bool, error) { return 0, true, no }); got != nil || err != no { //nolint:errorlint // the very one
		t.Errorf("got %x, %v, want the error", got, err)
	}
	for _, bad := range [][]byte{nil, {2, 0, 0}, {1, 0, 0, 0}, list[:len(list)-1]} {
		if got, err := Translate(bad, nil); got != nil || !errors.Is(err, ErrMalformed) {
			t.Errorf("%x: got %x, %v", bad, got, err)
		}
	}
}
