package container

import (
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

// namespaces says where each namespace of the container comes from.
type namespaces struct {
	new   uintptr                           // CLONE_NEW… flags of namespaces to make, without user and mount
	join  []joinedNamespace                 // in the order in which to join them
	user  userNamespace                     // none, new or joined
	types map[specs.LinuxNamespaceType]bool // private to the container: new or joined
	paths map[specs.LinuxNamespaceType]string
}

type userNamespace int

const (
	noUserNamespace userNamespace = iota
	newUserNamespace
	joinedUserNamespace
)

type joinedNamespace struct {
	kind specs.LinuxNamespaceType
	flag uintptr
	path string
	slot launch.Slot
}

var namespaceFlags = map[specs.LinuxNamespaceType]struct {
	flag uintptr
	name string
}{
	specs.PIDNamespace:     {unix.CLONE_NEWPID, "CLONE_NEWPID"},
	specs.NetworkNamespace: {unix.CLONE_NEWNET, "CLONE_NEWNET"},
	specs.IPCNamespace:     {unix.CLONE_NEWIPC, "CLONE_NEWIPC"},
	specs.UTSNamespace:     {unix.CLONE_NEWUTS, "CLONE_NEWUTS"},
	specs.CgroupNamespace:  {unix.CLONE_NEWCGROUP, "CLONE_NEWCGROUP"},
	specs.UserNamespace:    {unix.CLONE_NEWUSER, "CLONE_NEWUSER"},
	specs.MountNamespace:   {unix.CLONE_NEWNS, "CLONE_NEWNS"},
	specs.TimeNamespace:    {unix.CLONE_NEWTIME, "CLONE_NEWTIME"},
}

// namespaceOrder is the order in which namespaces are printed and joined.
var namespaceOrder = []specs.LinuxNamespaceType{
	specs.UserNamespace, specs.PIDNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace,
	specs.TimeNamespace, specs.CgroupNamespace,
}

func planNamespaces(s *specs.Spec) (namespaces, error) {
	ns := namespaces{types: map[specs.LinuxNamespaceType]bool{}, paths: map[specs.LinuxNamespaceType]string{}}
	for _, n := range s.Linux.Namespaces {
		if _, ok := namespaceFlags[n.Type]; !ok {
			return ns, fmt.Errorf("unknown namespace type %q", n.Type)
		}
		if ns.types[n.Type] {
			return ns, fmt.Errorf("namespace type %q is listed twice", n.Type)
		}
		ns.types[n.Type] = true
		ns.paths[n.Type] = n.Path
	}
	if !ns.types[specs.MountNamespace] {
		return ns, errors.New("a container without a mount namespace of its own is not supported")
	}
	if ns.paths[specs.MountNamespace] != "" {
		return ns, errors.New("joining a mount namespace by path is not supported")
	}
	for _, t := range namespaceOrder {
		switch {
		case !ns.types[t]:
		case ns.paths[t] != "":
			ns.join = append(ns.join, joinedNamespace{kind: t, flag: namespaceFlags[t].flag, path: ns.paths[t]})
			if t == specs.UserNamespace {
				ns.user = joinedUserNamespace
			}
		case t == specs.UserNamespace:
			ns.user = newUserNamespace
		default:
			ns.new |= namespaceFlags[t].flag
		}
	}
	if err := checkSysctls(s.Linux.Sysctl, ns); err != nil {
		return ns, err
	}
	if (s.Hostname != "" || s.Domainname != "") && !ns.own(specs.UTSNamespace) {
		return ns, errors.New("a hostname needs a UTS namespace of the container's own")
	}
	if len(s.Linux.TimeOffsets) > 0 && ns.new&unix.CLONE_NEWTIME == 0 {
		return ns, errors.New("time offsets need a new time namespace")
	}
	return ns, nil
}

// fresh reports whether the container gets a new namespace of this type.
func (ns namespaces) fresh(t specs.LinuxNamespaceType) bool { return ns.types[t] && ns.paths[t] == "" }

// own reports whether changing the namespace of this type leaves the caller's
// alone: it is new, or joined and another one.
func (ns namespaces) own(t specs.LinuxNamespaceType) bool {
	return ns.types[t] && (ns.paths[t] == "" || !callers(t, ns.paths[t]))
}

// callers reports whether path leads to the caller's own namespace, or to none
// that can be looked at.
func callers(t specs.LinuxNamespaceType, path string) bool {
	name := namespaceFile(t)
	var mine, other unix.Stat_t
	if unix.Stat("/proc/self/ns/"+name, &mine) != nil || unix.Stat(path, &other) != nil {
		return true
	}
	return mine.Dev == other.Dev && mine.Ino == other.Ino
}

func flagNames(flags uintptr) string {
	out := ""
	for _, t := range namespaceOrder {
		if f := namespaceFlags[t]; flags&f.flag != 0 {
			if out != "" {
				out += "|"
			}
			out += f.name
		}
	}
	if out == "" {
		return "0"
	}
	return out
}
