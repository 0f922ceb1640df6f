package safetext

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestCommand(t *testing.T) {
	for _, tt := range []struct {
		words []string
		want  string
	}{
		{[]string{"bulkhead", "probe", "--security-opt", "seccomp=/a/b.json", "-p", "80:80/tcp", "debian:12"}, "bulkhead probe --security-opt seccomp=/a/b.json -p 80:80/tcp debian:12"},
		{[]string{"-e", "A=b c", ""}, "-e 'A=b c' ''"},
		{[]string{"it's", "$(id)", "a;b", "~", "*", "grün"}, `'it'\''s' '$(id)' 'a;b' '~' '*' 'grün'`},
		{[]string{"a\nb", "it's\x1b1\\", "\xffé\u202e"}, `$'a\012b' $'it\'s\0331\\' $'\377é\342\200\256'`},
	} {
		if got := Command(tt.words); got != tt.want || Line(got) != got {
			t.Errorf("%q: got %s, want %s", tt.words, got, tt.want)
		}
	}
}

// TestCommandInShell has a shell take apart what is printable.
func TestCommandInShell(t *testing.T) {
	words := []string{"a b", "", "it's", `"`, `\`, `\n`, "$HOME", "`id`", "$(id)", "a;b&c|d", "*", "?", "[a]", "~", "#x", "{a,b}", "!", "<>", "grün", "=x", "-n"}
	out, err := exec.Command("sh", "-c", "for word in "+Command(words)+`; do printf '%s\n' "$word"; done`).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n"); !slices.Equal(got, words) {
		t.Errorf("got %q, want %q", got, words)
	}
}
