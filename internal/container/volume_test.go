package container

import (
	"errors"
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
		"writable":             {[]string{"bind", "idmap"}, ""},
		"read-only":            {[]string{"bind", "ro"}, "does not exist in the volume at /data, which is read-only"},
		"read-only and mapped": {[]string{"bind", "idmap", "ro"}, "does not exist in the volume at /data, which is read-only"},
		"recursive read-only":  {[]string{"rbind", "ridmap", "rro"}, "does not exist in the volume at /data, which is read-only"},
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

// TestWorkingDirectoryByLinkInVolume: a volume in which the working directory is a
// link covers an image in which it is a directory, and the other way round.
func TestWorkingDirectoryByLinkInVolume(t *testing.T) {
	plain, linked := t.TempDir(), t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(plain, "current"), 0o755),
		os.MkdirAll(filepath.Join(linked, "releases/1"), 0o755), os.Symlink("releases/1", filepath.Join(linked, "current")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		volume, want string
		image        func(app string) error
	}{
		"directory in the image": {linked, "/app/releases/1\n", func(app string) error { return os.MkdirAll(filepath.Join(app, "current"), 0o755) }},
		"link in the image": {plain, "/app/current\n", func(app string) error {
			return errors.Join(os.MkdirAll(filepath.Join(app, "elsewhere/deep"), 0o755), os.Symlink("elsewhere/deep", filepath.Join(app, "current")))
		}},
		"nothing in the image": {linked, "/app/releases/1\n", func(string) error { return nil }},
	} {
		out, exit, err := tryRun(t, func(cfg *Config) {
			if err := c.image(filepath.Join(cfg.Layers.Lower[0], "app")); err != nil {
				t.Fatal(err)
			}
			cfg.Spec.Process.Cwd = "/app/current"
			cfg.Spec.Mounts = append(cfg.Spec.Mounts, specs.Mount{Destination: "/app", Type: "bind", Source: c.volume, Options: []string{"bind", "idmap"}})
		}, "sh", "-c", "pwd -P")
		if err != nil || exit.Code != 0 || out != c.want {
			t.Errorf("%s: got %q, exit %+v, %v, want %q", name, out, exit, err, c.want)
		}
	}
}

// TestWorkingDirectoryInProc: /proc/self leads each process elsewhere.
func TestWorkingDirectoryInProc(t *testing.T) {
	out, exit := run(t, func(cfg *Config) { cfg.Spec.Process.Cwd = "/proc/self" }, "sh", "-c", "pwd -P")
	if exit.Code != 0 || out != "/proc/1\n" {
		t.Errorf("exit %+v, output %q", exit, out)
	}
}
