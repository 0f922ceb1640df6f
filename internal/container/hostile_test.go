package container

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// hostUser leaves the container in the host's user namespace.
func hostUser(t *testing.T) func(*Config) {
	return func(c *Config) {
		c.Spec.Linux.UIDMappings, c.Spec.Linux.GIDMappings = nil, nil
		c.Spec.Linux.Namespaces = c.Spec.Linux.Namespaces[:6]
		c.Layers = layersOf(t, c.Layers.Lower[0], 0)
	}
}

// TestMaskKeepsHostNull: a mask over a file is the host's null device. Without
// a user namespace, root inside may change mode and owner of whatever it owns.
func TestMaskKeepsHostNull(t *testing.T) {
	out, exit := run(t, hostUser(t), "sh", "-c", `for f in keys timer_list; do
		busybox chmod 666 /proc/$f && echo changed $f
		chown 0:0 /proc/$f && echo owned $f
		echo x > /proc/$f || echo cannot write $f
		test -z "$(cat /proc/$f)" || echo not empty $f
	done; true`)
	if exit.Code != 0 || strings.Contains(out, "changed") || strings.Contains(out, "owned") ||
		strings.Contains(out, "cannot write") || strings.Contains(out, "not empty") {
		t.Errorf("exit %+v, output %q: the mask is to be a null device that cannot be changed", exit, out)
	}
}

// TestReservedID: setresuid(-1) changes nothing, and the process would be root.
func TestReservedID(t *testing.T) {
	const none = 1<<32 - 1
	for name, u := range map[string]specs.User{
		"user":          {UID: none},
		"group":         {GID: none},
		"another group": {AdditionalGids: []uint32{1, none}},
	} {
		t.Run(name, func(t *testing.T) {
			out, _, err := tryRun(t, func(c *Config) {
				hostUser(t)(c)
				c.Spec.Process.User = u
			}, "id")
			if err == nil || !strings.Contains(err.Error(), "reserved") {
				t.Errorf("got %v, output %q; want the ID refused", err, out)
			}
		})
	}
}
