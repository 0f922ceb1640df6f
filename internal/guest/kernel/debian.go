package kernel

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel/vmlinux"
)

// fetcher gets the distribution's kernel.
type fetcher interface {
	// fetch writes a Debian package to target, and returns that path and where
	// the package came from. have is where the kernel that is here came from: if
	// it is the newest, the path is "".
	fetch(ctx context.Context, target, have string, p Progress) (path, source string, err error)
}

// debian fetches with apt, which knows the machine's mirrors and checks the
// archive's signatures. Nothing is installed, and nothing of the machine's apt
// changes: its lists are only read, and if they are old or do not suffice, fresh ones
// are fetched into a directory of our own.
type debian struct{}

// metaPackage depends on the kernel package of the day.
const metaPackage = "linux-image-amd64"

// Fixed paths: whoever sets the search path would choose what runs as root.
const (
	aptGet   = "/usr/bin/apt-get"
	aptCache = "/usr/bin/apt-cache"
	dpkgDeb  = "/usr/bin/dpkg-deb"
)

// dropPrefix begins the name of the directory that apt downloads into. It lies
// where apt's unprivileged user, who does the downloading, can reach it.
const (
	dropParent = "/var/tmp"
	dropPrefix = "bulkhead-kernel-"
)

// debPackage is what a package list says of a package.
type debPackage struct {
	name, version, sha256 string
	size                  int64
	depends               string
}

func (p debPackage) source() string {
	return fmt.Sprintf("Debian package %s %s", p.name, p.version)
}

func (debian) fetch(ctx context.Context, target, have string, p Progress) (string, string, error) {
	for _, program := range []string{aptGet, aptCache, dpkgDeb} {
		if _, err := os.Stat(program); err != nil {
			return "", "", fmt.Errorf("this is no Debian system: %s is missing", program)
		}
	}
	a, err := newApt()
	if err != nil {
		return "", "", err
	}
	defer a.close()
	var pkg debPackage
	take := func(ctx context.Context) (err error) {
		if pkg, err = a.kernelPackage(ctx); err == nil && have != pkg.source() {
			err = a.download(ctx, pkg, target, p)
		}
		return err
	}
	fresh := func(ctx context.Context) error {
		p.Update(metaPackage, "package lists", 0, 0)
		a.private = true
		err := a.update(ctx)
		if err == nil {
			err = take(ctx)
		}
		if err != nil {
			return fmt.Errorf("fresh package lists: %w", err)
		}
		return nil
	}
	since := listsFetched(aptLists)
	here := func(ctx context.Context) error {
		a.private = false
		return take(ctx)
	}
	switch {
	case have != "": // of lists that are older than what is here the kernel may be, too
		err = fresh(ctx)
	case time.Since(since) < listsMaxAge:
		err = firstOf(ctx, here, fresh) // the package may be gone already
	default:
		err = firstOf(ctx, fresh, func(ctx context.Context) error {
			err := here(ctx)
			if err == nil {
				p.Done(metaPackage, fmt.Sprintf("by the machine's package lists of %s, as there are no fresh ones; see `bulkhead kernel update`", since.Format(time.DateOnly)))
			}
			return err
		})
	}
	switch {
	case ctx.Err() != nil:
		return "", "", context.Cause(ctx)
	case err != nil:
		return "", "", err
	case have == pkg.source():
		return "", "", nil
	}
	return target, pkg.source(), nil
}

// firstOf does the second thing if the first fails.
func firstOf(ctx context.Context, first, second func(context.Context) error) error {
	err := first(ctx)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if again := second(ctx); again != nil {
		return fmt.Errorf("%w; %w", err, again)
	}
	return nil
}

// aptLists has the machine's package lists, and in partial what apt is just fetching.
const aptLists = "/var/lib/apt/lists"

// listsMaxAge is how long the machine's lists are taken for those of the day: Debian has
// them fetched once a day (apt-daily.timer), if it has anything do that.
const listsMaxAge = 24 * time.Hour

// listsFetched tells when package lists were last looked for; the files themselves have
// the times of their server.
func listsFetched(dir string) (last time.Time) {
	for _, d := range []string{dir, filepath.Join(dir, "partial")} {
		if info, err := os.Stat(d); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}

// apt runs apt's programs with directories of their own.
type apt struct {
	dir     string
	private bool // lists of our own
}

func newApt() (*apt, error) {
	removeOldDrops()
	dir, err := os.MkdirTemp(dropParent, dropPrefix)
	if err != nil {
		return nil, err
	}
	a := &apt{dir: dir}
	err = errors.Join(
		os.Chmod(dir, 0o711), // others may pass, and see nothing
		os.Mkdir(a.path("drop"), 0o700),
		os.MkdirAll(a.path("state/lists/partial"), 0o711),
		os.MkdirAll(a.path("cache/archives/partial"), 0o711),
	)
	if err == nil && os.Geteuid() == 0 {
		// As root, apt downloads as this user if it can write there. What comes
		// is checked after it was copied out of that user's reach.
		if u, lookErr := user.Lookup("_apt"); lookErr == nil {
			uid, _ := strconv.Atoi(u.Uid)
			err = os.Chown(a.path("drop"), uid, 0)
		}
	}
	if err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

func (a *apt) path(name string) string { return filepath.Join(a.dir, name) }

func (a *apt) close() { os.RemoveAll(a.dir) }

// removeOldDrops removes what commands left behind that were killed: our own
// directories that nobody has touched for a day.
func removeOldDrops() {
	dirs, _ := filepath.Glob(filepath.Join(dropParent, dropPrefix+"*"))
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < 24*time.Hour {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == os.Geteuid() {
			os.RemoveAll(dir)
		}
	}
}

// command is one of apt's programs. The empty names of caches keep them in
// memory.
func (a *apt) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	options := []string{"-q", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "-o", "Acquire::Retries=2"}
	if a.private {
		options = append(options, "-o", "Dir::State="+a.path("state"), "-o", "Dir::State::status=/var/lib/dpkg/status", "-o", "Dir::Cache="+a.path("cache"))
	}
	return command(ctx, program, append(options, args...)...)
}

// command is a program with a small environment, which is asked to end when ctx
// does.
func command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy", "APT_CONFIG", "TMPDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// run runs a command; its error carries the last of what it complained about.
func run(cmd *exec.Cmd) ([]byte, error) {
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		return nil, failed(cmd, complaints.Bytes(), err)
	}
	return out.Bytes(), nil
}

// failed is the error of a program: its last complaint, or how it ended.
func failed(cmd *exec.Cmd, complaints []byte, err error) error {
	name := filepath.Base(cmd.Path)
	last := ""
	for line := range strings.Lines(string(complaints)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "E:") || !strings.HasPrefix(line, "W:") && line != "" {
			last = strings.TrimSpace(strings.TrimPrefix(line, "E:"))
		}
	}
	if last == "" {
		return fmt.Errorf("%s: %w", name, err)
	}
	return fmt.Errorf("%s: %s: %w", name, last, err)
}

// versioned is the package that the meta package depends on.
var versioned = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(linux-image-[0-9][a-z0-9.+-]*) \(= ([^)]+)\)$`) })

// kernelPackage finds the package with the kernel of the day.
func (a *apt) kernelPackage(ctx context.Context) (debPackage, error) {
	meta, err := a.show(ctx, metaPackage)
	if err != nil {
		return debPackage{}, err
	}
	for dependency := range strings.SplitSeq(meta.depends, ",") {
		if m := versioned().FindStringSubmatch(strings.TrimSpace(dependency)); m != nil {
			return a.show(ctx, m[1]+"="+m[2])
		}
	}
	return debPackage{}, fmt.Errorf("package %s depends on no kernel: %q", metaPackage, meta.depends)
}

// show asks the package lists about one package.
func (a *apt) show(ctx context.Context, name string) (debPackage, error) {
	out, err := run(a.command(ctx, aptCache, "show", "--no-all-versions", name))
	if err != nil {
		return debPackage{}, err
	}
	return parsePackage(out)
}

// parsePackage reads the first paragraph of what apt-cache show prints,
// deb822(5).
func parsePackage(out []byte) (debPackage, error) {
	var p debPackage
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() && lines.Text() != "" {
		key, value, _ := strings.Cut(lines.Text(), ": ")
		switch key {
		case "Package":
			p.name = value
		case "Version":
			p.version = value
		case "Depends":
			p.depends = value
		case "SHA256":
			p.sha256 = value
		case "Size":
			p.size, _ = strconv.ParseInt(value, 10, 64)
		}
	}
	if err := lines.Err(); err != nil {
		return p, err
	}
	if p.name == "" || p.version == "" || len(p.sha256) != 2*sha256.Size || p.size <= 0 {
		return p, errors.New("apt-cache show names no package that can be downloaded")
	}
	return p, nil
}

// update fetches package lists into our own directory.
func (a *apt) update(ctx context.Context) error {
	_, err := run(a.command(ctx, aptGet, "update"))
	return err
}

// download writes a package to target.
func (a *apt) download(ctx context.Context, pkg debPackage, target string, p Progress) error {
	statusReader, statusWriter, err := os.Pipe()
	if err != nil {
		return err
	}
	defer statusReader.Close()
	cmd := a.command(ctx, aptGet, "-o", "APT::Status-Fd=3", "download", pkg.name+"="+pkg.version)
	cmd.Dir = a.path("drop")
	cmd.ExtraFiles = []*os.File{statusWriter}
	p.Update(pkg.name, "downloading", 0, pkg.size)
	done := make(chan struct{})
	go func() {
		defer close(done)
		follow(statusReader, func(percent float64) {
			p.Update(pkg.name, "downloading", int64(percent/100*float64(pkg.size)), pkg.size)
		})
	}()
	_, err = run(cmd)
	statusWriter.Close()
	<-done
	if err != nil {
		return err
	}
	files, err := filepath.Glob(a.path("drop/*.deb"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("apt-get download of %s left %d packages: %w", pkg.name, len(files), errors.Join(err, os.ErrNotExist))
	}
	if err := takeVerified(files[0], target, pkg); err != nil {
		return err
	}
	p.Done(pkg.name, pkg.version+" downloaded")
	return nil
}

// follow reads apt's status lines, "dlstatus:NUMBER:PERCENT:TEXT", until the
// pipe ends (apt's README.progress-reporting).
func follow(r io.Reader, tell func(percent float64)) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.SplitN(lines.Text(), ":", 4)
		if len(f) != 4 || f[0] != "dlstatus" {
			continue
		}
		if percent, err := strconv.ParseFloat(f[2], 64); err == nil && percent >= 0 && percent <= 100 {
			tell(percent)
		}
	}
	_, _ = io.Copy(io.Discard, r) // after a line that is too long
}

// takeVerified copies a downloaded package to where only we write, and checks
// that the copy is what the signed list names.
func takeVerified(from, to string, pkg debPackage) error {
	in, err := os.OpenFile(from, os.O_RDONLY|syscall.O_NOFOLLOW|nonblock, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, sum), io.LimitReader(in, pkg.size+1))
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("copy the package %s: %w", pkg.name, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != pkg.sha256 {
		return fmt.Errorf("package %s was downloaded with SHA-256 %s, and the package list says %s", pkg.name, got, pkg.sha256)
	}
	return nil
}

// isDeb reports whether a file begins like a Debian package.
func isDeb(file string) bool {
	f, size, err := openImage(file)
	if err != nil {
		return false
	}
	defer f.Close()
	kind, err := vmlinux.Identify(f, size)
	return err == nil && kind == vmlinux.Deb
}

// unpackDeb unpacks a kernel package and returns its image and its directory of
// modules.
func unpackDeb(ctx context.Context, st *stage, file string) (image, modules string, err error) {
	if file, err = filepath.Abs(file); err != nil {
		return "", "", err
	}
	tree := st.path("deb")
	if _, err := run(command(ctx, dpkgDeb, "-x", file, tree)); err != nil {
		return "", "", fmt.Errorf("unpack %s: %w", file, err)
	}
	images, _ := filepath.Glob(filepath.Join(tree, "boot", "vmlinu[xz]-*"))
	if len(images) != 1 {
		return "", "", fmt.Errorf("%s: %w: the package has %d kernel images", file, ErrInvalid, len(images))
	}
	for _, lib := range []string{"lib", "usr/lib"} {
		if found, _ := filepath.Glob(filepath.Join(tree, lib, "modules", "*")); len(found) == 1 {
			modules = found[0]
		}
	}
	// Both are used as they are, so neither may lead out of the package.
	for _, path := range []string{images[0], modules} {
		if path == "" {
			continue
		}
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			return "", "", err
		}
		top, err := filepath.EvalSymlinks(tree)
		if err != nil {
			return "", "", err
		}
		if rest, err := filepath.Rel(top, real); err != nil || !filepath.IsLocal(rest) {
			return "", "", fmt.Errorf("%s: %w: %s leads out of the package", file, ErrInvalid, path)
		}
	}
	return images[0], modules, nil
}
