package container

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"golang.org/x/sys/unix"
)

// wantedCaps are the five sets of capabilities(7).
type wantedCaps struct{ bounding, effective, permitted, inheritable, ambient capSet }

func (c *process) capabilities() (w wantedCaps, err error) {
	if c.spec.Capabilities == nil {
		return w, nil
	}
	s := c.spec.Capabilities
	for _, f := range []struct {
		to   *capSet
		from []string
	}{{&w.bounding, s.Bounding}, {&w.effective, s.Effective}, {&w.permitted, s.Permitted}, {&w.inheritable, s.Inheritable}, {&w.ambient, s.Ambient}} {
		set, _ := parseCaps(f.from) // unknown ones cannot be granted by any kernel: the spec has them ignored
		*f.to = set
	}
	if w.effective&^w.permitted != 0 {
		return w, fmt.Errorf("capabilities %s are effective but not permitted", w.effective&^w.permitted)
	}
	// An ambient capability must be permitted and inheritable; runtimes drop
	// the others (runtime-spec config.md#linux-process).
	w.ambient &= w.permitted & w.inheritable
	return w, nil
}

// planPrivileges drops the bounding set, takes the user's IDs, and then the
// capabilities that are left.
func (c *process) planPrivileges(g *launch.Program, w wantedCaps) {
	prctl := func(why string, op int, opText string, arg launch.Arg) {
		g.Do(launch.Init, launch.Prctl, why, launch.Flag(uintptr(op), opText), arg, launch.Int(0), launch.Int(0), launch.Int(0))
	}
	last := c.facts.lastCapability
	why := "capabilities that no program inside can regain"
	for n := 0; n <= last; n++ {
		if w.bounding&(1<<n) == 0 {
			prctl(why, unix.PR_CAPBSET_DROP, "PR_CAPBSET_DROP", launch.Flag(uintptr(n), capSet(1<<n).String()))
			why = ""
		}
	}
	if c.uid != 0 {
		prctl("keep capabilities over the change of user", unix.PR_SET_KEEPCAPS, "PR_SET_KEEPCAPS", launch.Int(1))
	}
	groups := make([]byte, 4*len(c.groups))
	texts := make([]string, len(c.groups))
	for i, id := range c.groups {
		binary.NativeEndian.PutUint32(groups[4*i:], id)
		texts[i] = fmt.Sprint(id)
	}
	g.Do(launch.Init, launch.Setgroups, "", launch.Int(len(c.groups)), launch.Buf(groups, "["+strings.Join(texts, ", ")+"]"))
	g.Do(launch.Init, launch.Setresgid, "", launch.Int(int(c.gid)), launch.Int(int(c.gid)), launch.Int(int(c.gid)))
	g.Do(launch.Init, launch.Setresuid, "the user", launch.Int(int(c.uid)), launch.Int(int(c.uid)), launch.Int(int(c.uid)))
	notDumpable(g, launch.Init, "again, as its user")
	if c.uid != 0 {
		prctl("", unix.PR_SET_KEEPCAPS, "PR_SET_KEEPCAPS", launch.Int(0))
	}
	header := make([]byte, 8) // struct __user_cap_header_struct: version 3, this thread
	binary.NativeEndian.PutUint32(header, unix.LINUX_CAPABILITY_VERSION_3)
	data := make([]byte, 24)
	for half := range 2 {
		for i, s := range []capSet{w.effective, w.permitted, w.inheritable} {
			binary.NativeEndian.PutUint32(data[12*half+4*i:], uint32(s>>(32*half)))
		}
	}
	g.Do(launch.Init, launch.Capset, "what it may do as its user", launch.Buf(header, "{_LINUX_CAPABILITY_VERSION_3, 0}"),
		launch.Buf(data, fmt.Sprintf("{effective=%s, permitted=%s, inheritable=%s}", w.effective, same(w.permitted, w.effective), same(w.inheritable, w.effective))))
	g.Do(launch.Init, launch.Prctl, "capabilities do not pass over execve by themselves", launch.Flag(unix.PR_CAP_AMBIENT, "PR_CAP_AMBIENT"), launch.Flag(unix.PR_CAP_AMBIENT_CLEAR_ALL, "PR_CAP_AMBIENT_CLEAR_ALL"), launch.Int(0), launch.Int(0), launch.Int(0))
	for rest := w.ambient; rest != 0; rest &= rest - 1 {
		n := bits.TrailingZeros64(uint64(rest))
		g.Do(launch.Init, launch.Prctl, "", launch.Flag(unix.PR_CAP_AMBIENT, "PR_CAP_AMBIENT"), launch.Flag(unix.PR_CAP_AMBIENT_RAISE, "PR_CAP_AMBIENT_RAISE"),
			launch.Flag(uintptr(n), capSet(1<<n).String()), launch.Int(0), launch.Int(0))
	}
	if c.killed {
		prctl("ends with its supervisor", unix.PR_SET_PDEATHSIG, "PR_SET_PDEATHSIG", launch.Flag(uintptr(unix.SIGKILL), "SIGKILL"))
	}
	if c.spec.NoNewPrivileges {
		prctl("no program inside gains privileges by being executed", unix.PR_SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS", launch.Int(1))
	}
}

// same shortens a set that equals another.
func same(s, other capSet) string {
	if s == other {
		return "the same"
	}
	return s.String()
}
