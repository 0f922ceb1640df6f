package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/copy"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/terminal"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/filetree"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

// copying are the flags of cp.
type copying struct{ archive, follow, quiet bool }

func (a *app) cpCommand() *cobra.Command {
	var c copying
	cmd := &cobra.Command{
		Use:   "cp [flags] SRC DST",
		Short: "Copy files between a workload and this machine",
		Long: `Cp copies a file or a whole directory out of a workload or into one, whether it
runs or not. One of SRC and DST is WORKLOAD:PATH, the other a path of this
machine, or "-" for a tar archive on standard input or output. If DST is a
directory that exists, the copy lies in it; with a SRC that ends in "/." only
what SRC holds. Otherwise DST is what the copy is called.

What is copied in belongs to the workload's root, what is copied out to you,
without setuid bits, unless -a keeps owners as numbers. Devices are never made.
Paths are resolved inside the workload, whatever it does to its links
meanwhile. What is mounted there is included, but for the kernel's own file
systems, such as /proc.`,
		Example: `  bulkhead cp web:/var/log/nginx ./logs
  bulkhead cp site/. web:/usr/share/nginx/html
  bulkhead cp web:/etc - | tar t`,
		Args:              needs(2, 2, "a source and a destination"),
		ValidArgsFunction: a.completePaths,
		RunE: func(cmd *cobra.Command, args []string) error {
			src, dst := copy.Parse(args[0]), copy.Parse(args[1])
			switch {
			case src.Workload != "" && dst.Workload != "":
				return advice.New("copying between two workloads is not supported", "copy through a pipe: `bulkhead cp "+args[0]+" - | bulkhead cp - "+args[1]+"`")
			case src.Workload == "" && dst.Workload == "":
				return advice.New("neither the source nor the destination is in a workload", "write WORKLOAD:PATH for one of them")
			case src.Path == "" || dst.Path == "":
				return advice.New("a path is empty", "write what to copy after the colon, such as "+src.Workload+dst.Workload+":/etc")
			}
			ref := src.Workload + dst.Workload
			return a.withFiles(cmd, ref, func(ctx context.Context, f *engine.Files) error {
				if src.Workload != "" {
					return a.copyOut(ctx, f, c, src.Path, dst.Path)
				}
				return a.copyIn(ctx, f, c, src.Path, dst.Path)
			})
		},
	}
	cmd.Flags().BoolVarP(&c.archive, "archive", "a", false, "keep owners, by their numbers")
	cmd.Flags().BoolVarP(&c.follow, "follow-link", "L", false, "follow a link at the end of SRC")
	cmd.Flags().BoolVarP(&c.quiet, "quiet", "q", false, "show no progress; it is shown on a terminal only")
	return cmd
}

// withFiles calls f with the way to a workload's files, and closes that
// whatever happens.
func (a *app) withFiles(cmd *cobra.Command, ref string, f func(context.Context, *engine.Files) error) error {
	return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
		files, err := e.Files(ctx, ref)
		if err != nil {
			return err
		}
		return both(f(ctx, files), files.Close())
	})
}

// both is errors.Join that leaves a single error alone.
func both(a, b error) error {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return errors.Join(a, b)
}

// inside names a path of a workload in an error, and says what to do about it.
func inside(f *engine.Files, err error) error {
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, workload.ErrNoPath):
		return advice.Wrap(err, f.Record.Spec.Name+":"+err.Error(), "check the path; `bulkhead cp "+f.Record.Spec.Name+":/ - | tar t` lists all there is")
	case strings.HasPrefix(err.Error(), "/"):
		return fmt.Errorf("%s:%w", f.Record.Spec.Name, err)
	}
	return err
}

// copyOut copies from a workload.
func (a *app) copyOut(ctx context.Context, f *engine.Files, c copying, src, dst string) error {
	src = copy.Inside(src)
	read := boundary.ReadOptions{Follow: c.follow}
	if dst == copy.Stream {
		if terminal.IsTerminal(a.out) {
			return advice.New("an archive would be written to standard output, and that is a terminal", "give a destination, or pipe it into a program such as `tar t`")
		}
		return inside(f, f.ReadArchive(ctx, src, read, interruptibleWriter(ctx, a.out)))
	}
	st, err := f.StatPath(ctx, src)
	if err == nil && c.follow && st.Mode&syscall.S_IFMT == syscall.S_IFLNK {
		if st, err = f.StatPath(ctx, src+"/."); err != nil {
			st, err = workload.PathStat{}, nil // a file, or nothing, which reading it tells
		}
	}
	if err != nil {
		return inside(f, err)
	}
	target, err := copy.LocalTarget(dst)
	if err != nil {
		return planned(err)
	}
	base := filetree.Base(src)
	dir, as, err := copy.Plan(copy.Source{Base: base, IsDir: isDir(st)}, target)
	if err != nil {
		return planned(err)
	}
	return a.transfer(c, dst, func(count func(io.Writer) io.Writer) error {
		skipped := skips{}
		err := pipe(func(w io.Writer) error { return f.ReadArchive(ctx, src, read, count(w)) },
			func(r io.Reader) error { return copy.Unpack(ctx, dir, base, as, c.archive, skipped.add, r) })
		return both(inside(f, err), skipped.err())
	})
}

// copyIn copies into a workload.
func (a *app) copyIn(ctx context.Context, f *engine.Files, c copying, src, dst string) error {
	target, err := workloadTarget(ctx, f, copy.Inside(dst))
	if err != nil {
		return inside(f, err)
	}
	write := boundary.ArchiveOptions{Owners: c.archive, NoOverwriteDir: true}
	if src == copy.Stream {
		if !target.IsDir {
			return advice.New(fmt.Sprintf("%s:%s: an archive is unpacked in a directory, and this is none", f.Record.Spec.Name, dst), "give a directory that exists")
		}
		if terminal.IsTerminal(a.in) {
			return advice.New("an archive is read from standard input, and that is a terminal", "pipe one into it")
		}
		in, _, err := unpack.Decompress(unpack.Interruptible(ctx, a.in))
		if err != nil {
			return advice.Wrap(err, "standard input is no archive: "+err.Error(), "give a tar archive, plain or compressed with gzip or zstd")
		}
		defer in.Close()
		return inside(f, f.WriteArchive(ctx, target.Path, write, in))
	}
	l, err := copy.OpenLocal(src, c.follow)
	if err != nil {
		return err
	}
	defer l.Close()
	dir, as, err := copy.Plan(l.Source, target)
	if err != nil {
		return planned(fmt.Errorf("%s:%w", f.Record.Spec.Name, err))
	}
	return a.transfer(c, f.Record.Spec.Name+":"+dst, func(count func(io.Writer) io.Writer) error {
		skipped := skips{}
		err := pipe(func(w io.Writer) error {
			return l.Read(ctx, as, func(name, why string) { _ = skipped.add(name, why) }, count(w))
		}, func(r io.Reader) error { return f.WriteArchive(ctx, dir, write, r) })
		return both(inside(f, err), skipped.err())
	})
}

func isDir(st workload.PathStat) bool { return st.Mode&syscall.S_IFMT == syscall.S_IFDIR }

// planned says what to do about a destination that does not fit.
func planned(err error) error {
	switch {
	case errors.Is(err, copy.ErrDirOverFile):
		return advice.Wrap(err, err.Error(), "give another destination, or remove the file")
	case errors.Is(err, copy.ErrNoDirectory):
		return advice.Wrap(err, err.Error(), "make it first, or give one that exists")
	}
	return err
}

// workloadTarget looks at a destination in a workload. Links are followed.
func workloadTarget(ctx context.Context, f *engine.Files, dst string) (copy.Target, error) {
	t := copy.Target{Path: dst}
	const links = 40 // as the kernel's path_resolution(7)
	for range links {
		st, err := f.StatPath(ctx, t.Path)
		if errors.Is(err, workload.ErrNoPath) {
			return t, nil // its directory may be missing too, which the copy tells
		}
		if err != nil {
			return t, err
		}
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFLNK:
			t.Path = copy.Join(t.Path, st.LinkTarget)
			continue
		case syscall.S_IFDIR:
			t.IsDir = true
		case syscall.S_IFREG:
		default:
			return t, fmt.Errorf("%s: it is neither a file nor a directory", t.Path)
		}
		t.Exists = true
		return t, nil
	}
	return t, fmt.Errorf("%s: %w", dst, syscall.ELOOP)
}

// pipe lets read write what write reads, and returns the reason of the end. A write
// that has ended reads no more, whatever it says of its success: whoever read fills
// the pipe for must not wait for it.
func pipe(read func(io.Writer) error, write func(io.Reader) error) error {
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := read(w)
		w.CloseWithError(err) // io.EOF for nil
		done <- err
	}()
	err := write(r)
	r.CloseWithError(cmp.Or(err, io.ErrClosedPipe))
	if rerr := <-done; rerr != nil && !errors.Is(rerr, err) {
		return rerr // which write has seen as the end of its input
	}
	return err
}

// skips are the files that a copy left out.
type skips struct {
	first string
	n     int
}

func (s *skips) add(name, why string) error {
	if s.n++; s.n == 1 {
		s.first = fmt.Sprintf("%s is not copied: %s", name, why)
	}
	return nil
}

func (s *skips) err() error {
	switch s.n {
	case 0:
		return nil
	case 1:
		return advice.New(s.first, "all else was copied")
	}
	return advice.New(fmt.Sprintf("%s; and %d more", s.first, s.n-1), "all else was copied")
}

// transfer calls f, which counts what it writes, and shows how far it is on a
// terminal.
func (a *app) transfer(c copying, to string, f func(count func(io.Writer) io.Writer) error) error {
	d := a.progress(c.quiet || !terminal.IsTerminal(a.err))
	defer d.Close()
	n := int64(0)
	err := f(func(w io.Writer) io.Writer {
		return counter{w, func(k int) {
			n += int64(k)
			d.Update(to, "copying", n, 0)
		}}
	})
	if err == nil {
		d.Done(to, "copied "+output.Size(n))
	}
	return err
}

type counter struct {
	w     io.Writer
	count func(n int)
}

func (c counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.count(n)
	return n, err
}

// completePaths offers workloads, with the colon, beside files.
func (a *app) completePaths(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 1 || strings.ContainsAny(toComplete, ":/.") {
		return nil, cobra.ShellCompDirectiveDefault
	}
	names, _ := a.completeWorkloads(anyStatus)(cmd, nil, toComplete)
	for i, n := range names {
		names[i] = n + ":"
	}
	if len(names) == 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return names, cobra.ShellCompDirectiveNoSpace
}
