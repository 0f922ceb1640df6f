package comparing

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// direct runs programs of the image as processes of this host, whose root
// directory is the image's: what everything else is measured against. Nothing
// isolates them; a mount namespace has the host's /proc, /sys and /dev there. Of
// the image's own programs it runs none unless trusted.
type direct struct {
	trusted bool
	made    *made
	root    string
	thread  *thread

	running map[string]*exec.Cmd
	ports   map[string]string
}

func (d *direct) setUp(ctx context.Context, m *made) (err error) {
	d.made, d.running, d.ports = m, map[string]*exec.Cmd{}, map[string]string{}
	if d.root, err = m.hostRoot(ctx); err == nil {
		d.thread, err = newThread(d.root)
	}
	return err
}

func (d *direct) launch(cmd *exec.Cmd) error { return d.thread.start(cmd) }

func (d *direct) tearDown(ctx context.Context) error {
	var names []string
	for name := range d.running {
		names = append(names, name)
	}
	err := d.remove(ctx, names...)
	if d.thread != nil {
		err = errors.Join(err, endRooted(ctx, d.root, nil))
		d.thread.end()
	}
	return err
}

// ended ends what a program left in the background: what has the image's files as
// its root directory, and is none of the workloads that are to go on.
func (d *direct) ended(ctx context.Context, name string, _ error) error {
	delete(d.running, name)
	return endRooted(ctx, d.root, func(pid int) bool {
		for _, cmd := range d.running {
			if cmd.Process.Pid == pid {
				return true
			}
		}
		return false
	})
}

// keep: what was started by a command goes on while another one ends.
func (d *direct) keep(name string, cmd *exec.Cmd) { d.running[name] = cmd }

// ourProgram reports whether a path in the image is one of the two programs that were
// added to it: by its very words, as any other that leads there may lead elsewhere.
func ourProgram(path string) bool { return path == meterPath || path == proberPath }

// errUntrusted is why a program is not run.
const errUntrusted = errNone("the program of the image would run as root on this host; --trust-image allows it")

func (d *direct) command(ctx context.Context, _ string, program []string) (*exec.Cmd, error) {
	if !d.trusted && !ourProgram(program[0]) {
		return nil, errUntrusted
	}
	path, err := d.find(program[0])
	if err != nil {
		return nil, err
	}
	cmd := prepared(ctx, append([]string{path}, program[1:]...)...)
	cmd.Args[0], cmd.Env, cmd.Dir = program[0], d.made.environment(), "/"
	cmd.Path, cmd.Err = path, nil // it is there for the thread, and not here
	return cmd, nil
}

// find looks for a program in the image.
func (d *direct) find(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	root, err := os.OpenRoot(d.root)
	if err != nil {
		return "", err
	}
	defer root.Close()
	for _, dir := range filepath.SplitList(d.made.path()) {
		path := filepath.Join("/", dir, name)
		if _, err := root.Lstat(path[1:]); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("the image has no program %s", name)
}

func (d *direct) detach(ctx context.Context, name string, program []string, ports bool) (string, error) {
	if ports {
		// The workload has the host's own loopback; a port that was free just now is
		// taken in the program's place.
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		d.ports[name] = l.Addr().String()
		program = append(append([]string{}, program[:len(program)-1]...), l.Addr().String())
		l.Close()
	}
	cmd, err := d.command(context.WithoutCancel(ctx), name, program)
	if err != nil {
		return "", err
	}
	cmd.Args[0] = name // which finds it among all processes
	if err := d.launch(cmd); err != nil {
		return "", err
	}
	d.running[name] = cmd
	return name, nil
}

func (d *direct) remove(_ context.Context, names ...string) error {
	var errs []error
	for _, name := range names {
		cmd := d.running[name]
		delete(d.running, name)
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, err)
		}
		_ = cmd.Wait() // it was killed
	}
	return errors.Join(errs...)
}

func (d *direct) address(_ context.Context, name string) (string, error) { return d.ports[name], nil }

func (d *direct) size(context.Context) (int64, error) { return diskUsage(d.root) }

// diskUsage is what the files below a directory take on the disk, each counted once.
func diskUsage(dir string) (total int64, err error) {
	type file struct{ dev, ino uint64 }
	seen := map[file]bool{}
	err = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		if f := (file{st.Dev, st.Ino}); !seen[f] {
			seen[f] = true
			total += st.Blocks * 512
		}
		return nil
	})
	return total, err
}
