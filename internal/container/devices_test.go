package container

import (
	"os"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestDeviceOutsideDev: the overlay and volumes have "nodev", and a device that was
// asked for there can be used all the same, at every start.
func TestDeviceOutsideDev(t *testing.T) {
	volume := t.TempDir()
	var layers *Layers
	for range 2 {
		out, exit := run(t, func(c *Config) {
			if layers == nil {
				layers = c.Layers
			}
			c.Layers.Upper = layers.Upper
			c.Spec.Mounts = append(c.Spec.Mounts, specs.Mount{Destination: "/data", Type: "bind", Source: volume, Options: []string{"bind", "idmap", "nodev"}})
			for _, at := range []string{"/opt/a/zero", "/etc/passwd", "/data/b/zero", "/dev/c/zero"} {
				c.Spec.Linux.Devices = append(c.Spec.Linux.Devices, specs.LinuxDevice{Path: at, Type: "c", Major: 1, Minor: 5})
			}
		}, "sh", "-c", "for f in /opt/a/zero /etc/passwd /data/b/zero /dev/c/zero; do stat -c %F:%u:%t:%T $f; head -c 3 $f | wc -c; done")
		const one = "character special file:0:1:5\n3\n"
		if exit.Code != 0 || out != one+one+one+one {
			t.Errorf("exit %+v, output %q, want four devices", exit, out)
		}
	}
	for _, at := range []string{volume + "/b/zero", layers.Upper + "/opt/a/zero"} {
		if fi, err := os.Lstat(at); err != nil || !fi.Mode().IsRegular() {
			t.Errorf("%s on the host: %v, %v; want a mount point and no device", at, fi, err)
		}
	}
}
