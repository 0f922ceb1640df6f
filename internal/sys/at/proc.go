package at

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// procPath names a file of an open directory for the calls that have no
// variant with a descriptor before Linux 6.13. The kernel walks the magic link
// to the very directory that is open, and l-calls do not follow the name.
func procPath(dir int, name string) string {
	if name == "" || name == "." {
		return "/proc/self/fd/" + strconv.Itoa(dir) + "/."
	}
	return "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name
}

// Major and Minor are the two parts of a device number.
func Major(st Stat) uint32 { return unix.Major(st.Rdev) }

// Minor is the second part of a device number.
func Minor(st Stat) uint32 { return unix.Minor(st.Rdev) }
