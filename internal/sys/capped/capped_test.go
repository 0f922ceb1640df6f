package capped

import (
	"io"
	"os/exec"
	"testing"
)

func TestBuffer(t *testing.T) {
	b := Buffer{Max: 4}
	for _, p := range []string{"ab", "cde", "f", ""} {
		if n, err := io.WriteString(&b, p); n != len(p) || err != nil {
			t.Errorf("writing %q: %d, %v", p, n, err)
		}
	}
	if got := b.String(); got != "abcd" || string(b.Bytes()) != got {
		t.Errorf("kept %q, %q", got, b.Bytes())
	}
	none := Buffer{Max: -1}
	if n, err := none.Write([]byte("x")); n != 1 || err != nil || none.String() != "" {
		t.Errorf("without room: %d, %v, kept %q", n, err, none.String())
	}
}

// TestOfProgram writes more than there is room for, as a program does.
func TestOfProgram(t *testing.T) {
	b := Buffer{Max: 1000}
	cmd := exec.Command("head", "-c", "3000000", "/dev/zero")
	cmd.Stdout = &b
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if n := len(b.Bytes()); n != 1000 {
		t.Errorf("kept %d bytes, want 1000", n)
	}
}
