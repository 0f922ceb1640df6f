package container

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAccessTimeOptions: what bind mounts with these options make of a source
// with those attributes, the answers of mount(2) and runc.
func TestAccessTimeOptions(t *testing.T) {
	const relatime, noatime, strict, nodir = unix.MOUNT_ATTR_RELATIME, unix.MOUNT_ATTR_NOATIME, unix.MOUNT_ATTR_STRICTATIME, unix.MOUNT_ATTR_NODIRATIME
	for _, c := range []struct {
		source  uint64
		options string
		want    uint64
	}{
		{noatime, "bind", noatime},
		{noatime, "bind,atime", noatime},
		{noatime | nodir, "bind,atime", noatime | nodir},
		{noatime, "bind,norelatime", noatime},
		{noatime, "bind,ro,exec", noatime},
		{noatime, "bind,relatime", relatime},
		{noatime, "bind,nodiratime", relatime | nodir},
		{noatime, "bind,nodiratime,strictatime", strict | nodir},
		{noatime, "bind,nodiratime,norelatime", relatime | nodir},
		{nodir, "bind,strictatime", strict},
		{nodir, "bind,diratime", nodir},
		{nodir, "bind,noatime", noatime},
		{strict, "bind,nostrictatime", strict},
		{relatime, "bind,norelatime", relatime},
		{relatime, "bind,noatime,strictatime", strict},
		{strict, "bind,noatime,atime", strict},
	} {
		o, err := parseMountOptions(strings.Split(c.options, ","))
		if err != nil {
			t.Fatal(err)
		}
		all := uint64(unix.MOUNT_ATTR__ATIME | unix.MOUNT_ATTR_NODIRATIME)
		if got := (c.source&^o.attrs.clr | o.attrs.set) & all; got != c.want {
			t.Errorf("source %s with %s: got %s, want %s", attrNames(c.source), c.options, attrNames(got), attrNames(c.want))
		}
	}
	// For a new file system there is no source: an attribute taken back is not set.
	if o, err := parseMountOptions([]string{"noatime", "nodiratime", "atime", "diratime"}); err != nil || o.attrs.set != 0 {
		t.Errorf("got %s, %v", attrNames(o.attrs.set), err)
	}
}
