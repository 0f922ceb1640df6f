package container

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// defaultPath is where programs are looked for when the environment has no
// PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// maxAccounts bounds what is read of an image's passwd and group files.
const maxAccounts = 4 << 20

// findProgram looks for the program to execute as execvp(3) does, inside the
// container. The error wraps workload.ErrCommandNotFound or
// workload.ErrNotExecutable.
func (v *view) findProgram(spec *specs.Process, env []string) (string, error) {
	name := spec.Args[0]
	if strings.Contains(name, "/") {
		at := name
		if !path.IsAbs(at) {
			at = path.Join(spec.Cwd, at)
		}
		if err := v.executable(at); err != nil {
			return "", fmt.Errorf("exec %q: %w", name, err)
		}
		return name, nil
	}
	search := defaultPath
	for _, e := range env {
		if s, ok := strings.CutPrefix(e, "PATH="); ok {
			search = s
		}
	}
	refused := workload.ErrCommandNotFound
	for _, dir := range strings.Split(search, ":") {
		if dir == "" {
			dir = "."
		}
		at := path.Join(dir, name)
		if !path.IsAbs(at) {
			at = path.Join(spec.Cwd, at)
		}
		switch err := v.executable(at); {
		case err == nil:
			return at, nil
		case errors.Is(err, workload.ErrNotExecutable):
			refused = err
		}
	}
	if errors.Is(refused, workload.ErrNotExecutable) {
		return "", fmt.Errorf("exec %q: %w", name, refused)
	}
	return "", fmt.Errorf("exec %q: %w in $PATH", name, refused)
}

func (v *view) executable(at string) error {
	loc, err := v.resolve(at)
	switch {
	case errors.Is(err, unix.ENOTDIR), err == nil && len(loc.missing) > 0:
		return workload.ErrCommandNotFound
	case err != nil:
		return fmt.Errorf("%w: %w", workload.ErrCommandNotFound, err)
	case loc.mode.IsDir():
		return fmt.Errorf("%w: is a directory", workload.ErrNotExecutable)
	case !loc.mode.IsRegular():
		if loc.mode&fs.ModeDevice != 0 && strings.HasPrefix(loc.path, "/proc/") {
			return workload.ErrCommandNotFound
		}
		return fmt.Errorf("%w: not a regular file", workload.ErrNotExecutable)
	case loc.mode&0o111 == 0:
		return workload.ErrNotExecutable
	}
	return nil
}

// account is a user as the container's own files know it.
type account struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// findUser looks up who, "user[:group]" by name or number, in the container's
// /etc/passwd and /etc/group.
func (v *view) findUser(who string) (account, error) {
	passwd, err := v.accounts("/etc/passwd")
	if err != nil {
		return account{}, err
	}
	group, err := v.accounts("/etc/group")
	if err != nil {
		return account{}, err
	}
	u, err := user.GetExecUser(who, &user.ExecUser{Home: "/"}, strings.NewReader(passwd), strings.NewReader(group))
	if err != nil {
		name, grp, _ := strings.Cut(who, ":")
		switch {
		case errors.Is(err, user.ErrNoPasswdEntries):
			return account{}, fmt.Errorf("user %q: no such user in the image's /etc/passwd", name)
		case errors.Is(err, user.ErrNoGroupEntries):
			return account{}, fmt.Errorf("group %q: no such group in the image's /etc/group", grp)
		}
		return account{}, fmt.Errorf("user %q: %w", who, err)
	}
	for _, id := range append([]int{u.Uid, u.Gid}, u.Sgids...) {
		if id < 0 || id >= noID { // cut off it would be another, such as root's
			return account{}, fmt.Errorf("user %q: the image's account files have the ID %d, which is none", who, id)
		}
	}
	a := account{uid: uint32(u.Uid), gid: uint32(u.Gid), home: u.Home}
	for _, g := range u.Sgids {
		a.groups = append(a.groups, uint32(g))
	}
	return a, nil
}

// accounts reads one of the account files; an image may have none.
func (v *view) accounts(name string) (string, error) {
	f, err := v.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxAccounts+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxAccounts {
		return "", fmt.Errorf("%s in the image is larger than %d bytes", name, maxAccounts)
	}
	return string(b), nil
}

// withHome completes the environment: every name once, with the last value
// given for it, and HOME, as every runtime adds it, where that is not set or
// empty.
func (v *view) withHome(env []string, uid uint32) []string {
	return withHome(env, func() string { return v.homeOf(uid) })
}

// homeOf is the home directory that the container's files know for a user.
func (v *view) homeOf(uid uint32) string {
	if a, err := v.findUser(strconv.FormatUint(uint64(uid), 10)); err == nil && a.home != "" {
		return a.home
	}
	return "/"
}

func withHome(env []string, home func() string) []string {
	last := map[string]int{}
	for i, e := range env {
		name, _, _ := strings.Cut(e, "=")
		last[name] = i
	}
	if i, ok := last["HOME"]; ok && env[i] == "HOME=" {
		delete(last, "HOME")
	}
	out := make([]string, 0, len(last)+1)
	for i, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if at, ok := last[name]; ok && at == i {
			out = append(out, e)
		}
	}
	if _, ok := last["HOME"]; ok {
		return out
	}
	return append(out, "HOME="+home())
}

var procUserNamespace = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^/proc/([0-9]+|self)/ns/user$`) })

// readIDMap finds the mappings of a user namespace that is joined by path. Some
// engines repeat them in the specification; other ones there would make files
// belong to users that the namespace does not mean, and are refused.
func readIDMap(nsPath string, l *specs.Linux) (out idMap, err error) {
	if m := procUserNamespace().FindStringSubmatch(nsPath); m == nil {
		out, err = mapsOf(nsPath)
	} else if out.uids, err = readMap("/proc/" + m[1] + "/uid_map"); err == nil {
		out.gids, err = readMap("/proc/" + m[1] + "/gid_map")
	}
	if err != nil {
		return idMap{}, err
	}
	for _, c := range []struct {
		what       string
		said, real []specs.LinuxIDMapping
	}{{"uidMappings", l.UIDMappings, out.uids}, {"gidMappings", l.GIDMappings, out.gids}} {
		if len(c.real) == 0 {
			return idMap{}, fmt.Errorf("the user namespace %s has no %s yet", nsPath, c.what)
		}
		if len(c.said) > 0 && !sameMappings(c.said, c.real) {
			return idMap{}, fmt.Errorf("%s are not those of the user namespace %s, which has %s", c.what, nsPath, strings.TrimSpace(mapText(c.real)))
		}
	}
	return out, nil
}

// sameMappings compares without regard to the order: the kernel keeps long maps
// in its own.
func sameMappings(a, b []specs.LinuxIDMapping) bool {
	sorted := func(l []specs.LinuxIDMapping) []specs.LinuxIDMapping {
		return slices.SortedFunc(slices.Values(l), func(x, y specs.LinuxIDMapping) int { return cmp.Compare(x.ContainerID, y.ContainerID) })
	}
	return slices.Equal(sorted(a), sorted(b))
}

func readMap(file string) (out []specs.LinuxIDMapping, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		var m specs.LinuxIDMapping
		if _, err := fmt.Sscan(s.Text(), &m.ContainerID, &m.HostID, &m.Size); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		out = append(out, m)
	}
	return out, s.Err()
}
