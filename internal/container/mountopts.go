package container

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// mountOptions is what a runtime spec's list of mount options asks for.
type mountOptions struct {
	bind      bool
	recursive bool // rbind
	attrs     attrs
	recAttrs  attrs // "rro" and the like: the whole tree below too
	// propagation is MS_PRIVATE, MS_SLAVE, MS_SHARED or MS_UNBINDABLE, with
	// MS_REC; 0 leaves it.
	propagation uint64
	data        []string // key or key=value, for fsconfig(2)
	idmap       bool
	idmapRec    bool
	copyUp      bool // tmpcopyup
}

// attrs are the arguments of mount_setattr(2).
type attrs struct{ set, clr uint64 }

func (a *attrs) apply(set, clr uint64) {
	a.set = a.set&^clr | set
	a.clr = a.clr&^set | clr
}

func (a attrs) empty() bool { return a.set == 0 && a.clr == 0 }

// ofNewFS makes the recursive forms plain ones: a file system that is made for
// the container has no mounts below it, and is what they mean.
func (o *mountOptions) ofNewFS() {
	o.attrs.apply(o.recAttrs.set, o.recAttrs.clr)
	o.recAttrs = attrs{}
}

// attrOptions are the per-mount options of mount(8) that come in a plain and a
// recursive form: NAME and rNAME.
var attrOptions = map[string]attrs{
	"ro":            {set: unix.MOUNT_ATTR_RDONLY},
	"rw":            {clr: unix.MOUNT_ATTR_RDONLY},
	"nosuid":        {set: unix.MOUNT_ATTR_NOSUID},
	"suid":          {clr: unix.MOUNT_ATTR_NOSUID},
	"nodev":         {set: unix.MOUNT_ATTR_NODEV},
	"dev":           {clr: unix.MOUNT_ATTR_NODEV},
	"noexec":        {set: unix.MOUNT_ATTR_NOEXEC},
	"exec":          {clr: unix.MOUNT_ATTR_NOEXEC},
	"nodiratime":    {set: unix.MOUNT_ATTR_NODIRATIME},
	"diratime":      {clr: unix.MOUNT_ATTR_NODIRATIME},
	"nosymfollow":   {set: unix.MOUNT_ATTR_NOSYMFOLLOW},
	"symfollow":     {clr: unix.MOUNT_ATTR_NOSYMFOLLOW},
	"relatime":      {set: unix.MOUNT_ATTR_RELATIME, clr: unix.MOUNT_ATTR__ATIME},
	"norelatime":    {set: unix.MOUNT_ATTR_RELATIME, clr: unix.MOUNT_ATTR__ATIME},
	"noatime":       {set: unix.MOUNT_ATTR_NOATIME, clr: unix.MOUNT_ATTR__ATIME},
	"atime":         {set: unix.MOUNT_ATTR_RELATIME, clr: unix.MOUNT_ATTR__ATIME},
	"strictatime":   {set: unix.MOUNT_ATTR_STRICTATIME, clr: unix.MOUNT_ATTR__ATIME},
	"nostrictatime": {set: unix.MOUNT_ATTR_RELATIME, clr: unix.MOUNT_ATTR__ATIME},
}

var propagationOptions = map[string]uint64{
	"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC,
	"slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE | unix.MS_REC,
	"shared": unix.MS_SHARED, "rshared": unix.MS_SHARED | unix.MS_REC,
	"unbindable": unix.MS_UNBINDABLE, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}

// parseMountOptions sorts the options of a mount of the runtime spec. What it
// does not know is data for the file system, which refuses what it does not
// know in turn.
func parseMountOptions(options []string) (mountOptions, error) {
	var o mountOptions
	var times accessTimes
	for _, s := range options {
		if times.take(s) {
			continue
		}
		if p, ok := propagationOptions[s]; ok {
			if o.propagation != 0 && o.propagation != p {
				return o, fmt.Errorf("mount options %q contradict each other on propagation", strings.Join(options, ","))
			}
			o.propagation = p
			continue
		}
		if a, ok := attrOptions[s]; ok {
			o.attrs.apply(a.set, a.clr)
			continue
		}
		if plain, ok := strings.CutPrefix(s, "r"); ok {
			if a, ok := attrOptions[plain]; ok {
				o.recAttrs.apply(a.set, a.clr)
				continue
			}
		}
		switch s {
		case "":
			return o, fmt.Errorf("an empty mount option")
		case "bind":
			o.bind = true
		case "rbind":
			o.bind, o.recursive = true, true
		case "idmap":
			o.idmap = true
		case "ridmap":
			o.idmap, o.idmapRec = true, true
		case "tmpcopyup":
			o.copyUp = true
		case "defaults", "loud", "silent", "noiversion", "norelativeatime", "async", "nomand", "remount", "_netdev", "auto", "noauto", "nofail", "user", "nouser":
			if s == "remount" {
				return o, fmt.Errorf("mount option %q: a mount is made once, with its final options", s)
			}
		default:
			o.data = append(o.data, s)
		}
	}
	o.attrs.apply(times.attrs())
	return o, nil
}

// accessTimes are the options of one mount about access times, worked through
// as mount(2) has them and mount(8) and runc keep them: an option that names a
// way replaces all that the source of a bind mount has, and one that only takes
// a way back ("atime", "diratime", "norelatime", "nostrictatime") takes it out
// of the list of options and leaves the source's alone. The recursive forms
// (rnoatime) are those of mount_setattr(2), one attribute each.
type accessTimes struct {
	way   string // "noatime", "relatime", "strictatime", or none of them
	noDir bool   // nodiratime
}

// take reports whether the option is one of them.
func (t *accessTimes) take(option string) bool {
	switch option {
	case "noatime", "relatime", "strictatime":
		t.way = option
	case "nodiratime":
		t.noDir = true
	case "diratime":
		t.noDir = false
	case "atime":
		t.drop("noatime")
	case "norelatime", "nostrictatime":
		t.drop(strings.TrimPrefix(option, "no"))
	default:
		return false
	}
	return true
}

func (t *accessTimes) drop(way string) {
	if t.way == way {
		t.way = ""
	}
}

// attrs is what to set and to clear. nodiratime alone implies relatime.
func (t *accessTimes) attrs() (set, clr uint64) {
	if t.way == "" && !t.noDir {
		return 0, 0
	}
	clr = unix.MOUNT_ATTR__ATIME
	if t.noDir {
		set = unix.MOUNT_ATTR_NODIRATIME
	} else {
		clr |= unix.MOUNT_ATTR_NODIRATIME
	}
	if t.way != "" {
		set |= attrOptions[t.way].set
	}
	return set, clr
}

// attrNames prints mount attributes by name.
func attrNames(a uint64) string {
	var names []string
	for _, f := range []struct {
		bit  uint64
		name string
	}{
		{unix.MOUNT_ATTR_RDONLY, "MOUNT_ATTR_RDONLY"}, {unix.MOUNT_ATTR_NOSUID, "MOUNT_ATTR_NOSUID"},
		{unix.MOUNT_ATTR_NODEV, "MOUNT_ATTR_NODEV"}, {unix.MOUNT_ATTR_NOEXEC, "MOUNT_ATTR_NOEXEC"},
		{unix.MOUNT_ATTR_NODIRATIME, "MOUNT_ATTR_NODIRATIME"}, {unix.MOUNT_ATTR_IDMAP, "MOUNT_ATTR_IDMAP"},
		{unix.MOUNT_ATTR_NOSYMFOLLOW, "MOUNT_ATTR_NOSYMFOLLOW"},
	} {
		if a&f.bit != 0 {
			names = append(names, f.name)
		}
	}
	switch a & unix.MOUNT_ATTR__ATIME {
	case unix.MOUNT_ATTR_NOATIME:
		names = append(names, "MOUNT_ATTR_NOATIME")
	case unix.MOUNT_ATTR_STRICTATIME:
		names = append(names, "MOUNT_ATTR_STRICTATIME")
	case unix.MOUNT_ATTR__ATIME:
		names = append(names, "MOUNT_ATTR__ATIME")
	}
	if len(names) == 0 {
		return "0"
	}
	return strings.Join(names, "|")
}

func propagationName(p uint64) string {
	for name, v := range map[uint64]string{unix.MS_PRIVATE: "MS_PRIVATE", unix.MS_SLAVE: "MS_SLAVE", unix.MS_SHARED: "MS_SHARED", unix.MS_UNBINDABLE: "MS_UNBINDABLE"} {
		if p&^unix.MS_REC == name {
			if p&unix.MS_REC != 0 {
				return v + "|MS_REC"
			}
			return v
		}
	}
	return "0"
}

// MountOptions lists the options of mounts that are carried out here; others go
// to the file system.
func MountOptions() []string {
	list := []string{"bind", "rbind", "idmap", "ridmap", "tmpcopyup"}
	for name := range attrOptions {
		list = append(list, name, "r"+name)
	}
	for name := range propagationOptions {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}
