package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestMountPointInVolume: a mount inside a volume whose mount point is missing
// there. It is made in the volume, owned by root as the volume's files are.
func TestMountPointInVolume(t *testing.T) {
	volume := t.TempDir()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, exit := run(t, func(c *Config) {
		c.Spec.Mounts = append(c.Spec.Mounts,
			specs.Mount{Destination: "/data", Type: "bind", Source: volume, Options: []string{"bind", "idmap"}},
			specs.Mount{Destination: "/data/a/b", Type: "tmpfs", Source: "tmpfs"},
			specs.Mount{Destination: "/data/c/file", Type: "bind", Source: file, Options: []string{"bind", "idmap"}})
	}, "sh", "-c", "stat -c %u:%g /data/a && touch /data/a/b/x && cat /data/c/file")
	if exit.Code != 0 || out != "0:0\ntext" {
		t.Errorf("exit %+v, output %q", exit, out)
	}
}

// TestWorkingDirectoryInVolume: a missing working directory is made there too,
// and in a read-only volume its lack is an error in words.
func TestWorkingDirectoryInVolume(t *testing.T) {
	for name, c := range map[string]struct {
		options []string
		want    string
	}{
		"writable":            {[]string{"bind", "idmap"}, ""},
		"read-only":           {[]string{"bind", "idmap", "ro"}, "does not exist in the volume at /data, which is read-only"},
		"recursive read-only": {[]string{"rbind", "ridmap", "rro"}, "does not exist in the volume at /data, which is read-only"},
	} {
		t.Run(name, func(t *testing.T) {
			volume := t.TempDir()
			out, _, err := tryRun(t, func(cfg *Config) {
				cfg.Spec.Process.Cwd = "/data/x/y"
				cfg.Spec.Mounts = append(cfg.Spec.Mounts, specs.Mount{Destination: "/data", Type: "bind", Source: volume, Options: c.options})
			}, "sh", "-c", "pwd; stat -c %u:%g .")
			if c.want == "" && (err != nil || out != "/data/x/y\n0:0\n") {
				t.Errorf("got %v, output %q", err, out)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if left, _ := os.ReadDir(volume); c.want != "" && len(left) > 0 {
				t.Errorf("the volume was changed: %v", left)
			}
		})
	}
}
