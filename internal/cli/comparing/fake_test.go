package comparing

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeEngine is a program with the command line of Docker, whose workloads and images
// are files, with their labels in them. The meter in it answers with the file "facts",
// and where the file "real" is, workloads that are detached are processes for a while.
const fakeEngine = `#!/bin/sh
cd "$STATE" || exit 1
echo "$@" >> log
command=$1
shift
case "$command" in
ps)
	for w in workloads/*; do
		[ -e "$w" ] || continue
		case "$*" in *"--filter label="*) [ "label=$(cat "$w")" = "$3" ] || continue ;; esac
		echo "${w#workloads/}"
	done ;;
images) cat images ;;
rm) shift 2; for w; do rm "workloads/$w" || exit 1; done ;;
image)
	for image; do :; done
	grep -qxF "$image" images || exit 1
	grep -vxF "$image" images > images.next; mv images.next images ;;
tenant) ;;
inspect) echo 0123456789abcdef ;;
exec)
	case "$*" in
	*measure*) cat facts ;;
	*systemctl*) echo running ;;
	*" true") ;;
	*sleep*) echo hello; sleep 1 ;;
	*) echo hello ;;
	esac ;;
export) tar -cf "$2" -T /dev/null ;;
spec) echo '{"process": {}, "root": {}}' > "$2/config.json" ;;
create|run)
	label=$2 all="$*"
	while [ $# -gt 1 ] && [ "$1" != --name ]; do shift; done
	[ "$1" = --name ] || exit 0
	echo "$label" > "workloads/$2"
	case "$all" in
	*stubborn*) trap '' TERM; echo > ready; while :; do sleep 0.05; done ;;
	*fails*) exit 1 ;;
	esac
	case "$command $all" in
	create*|*" -d "*)
		[ ! -e real ] || sh -c 'sleep 3; :' 0123456789abcdef > /dev/null 2>&1 &
		echo 0123456789abcdef ;;
	*measure*) cat facts; rm "workloads/$2" ;;
	*) echo hello; rm "workloads/$2" ;;
	esac ;;
esac
`

// newEngine puts such a program in the search path, under several names.
func newEngine(t *testing.T, names ...string) (state string) {
	t.Helper()
	state = t.TempDir()
	bin := t.TempDir()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(fakeEngine), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(state, "workloads"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(state, "images"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("STATE", state)
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	return state
}

// asked are the command lines that such programs were called with.
func asked(t *testing.T, state string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(state, "log"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}
