package launchtest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestReadTrace: a call counts once, also one that another thread's is printed
// in the middle of, or that a signal interrupts.
func TestReadTrace(t *testing.T) {
	const trace = `7 read(0x64, 0xc000, 0x10) = 0x10
7 read(0x64, 0xc000, 0x10) = -1 ERESTARTSYS (Unknown error 512)
7 rt_sigreturn(0x17) = 0
7 read(0x64, 0xc000, 0x10 <unfinished ...>
8 clone3(0xc000, 0x58 <unfinished ...>
7 <... read resumed>) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)
8 <... clone3 resumed>) = ? ERESTARTNOINTR (To be restarted)
7 read(0x64, 0xc000, 0x10 <unfinished ...>
8 clone3(0xc000, 0x58) = 0x9
7 <... read resumed>) = 0x10
8 exit_group(0) = ?
8 +++ exited with 0 +++
`
	name := filepath.Join(t.TempDir(), "trace")
	if err := os.WriteFile(name, []byte(trace), 0o600); err != nil {
		t.Fatal(err)
	}
	want := []string{"7 read 16", "7 rt_sigreturn 0", "8 clone3 9", "7 read 16", "8 exit_group 0"}
	var got []string
	for _, c := range readTrace(t, name) {
		got = append(got, fmt.Sprint(c.thread, " ", c.name, " ", c.result))
	}
	if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("%q, want %q", got, want)
	}
}
