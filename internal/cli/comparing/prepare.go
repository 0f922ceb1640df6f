package comparing

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/archive"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Where the layer that is added to the image has what measures.
const (
	insideDir   = "/.bulkhead-compare"
	meterPath   = insideDir + "/meter"
	proberPath  = insideDir + "/probe"
	scratchPath = insideDir + "/scratch" // anybody may write there
)

// imageName is the image with the layer; its tag says whose it is.
const imageName = "bulkhead-compare"

// What is made in the directory of a comparison once somebody asks for it.
const (
	hostRootDir    = "rootfs"   // the root directory of processes of this host
	runtimeRootDir = "runtimes" // that of the containers of runtimes
	archiveFile    = "image.tar"
)

// made is the image with the layer, in the forms that ways need it in.
type made struct {
	ours    string // its name in our store
	foreign string // its name for other engines
	user    string // that the image's programs run as, "" for root
	env     []string
	added   int64 // bytes of the programs in the layer

	images *image.Store
	self   *tool // this program
	dir    string
	saved  string // its archive, once somebody asked

	files    string // its root file system for runtimes, once one asked
	filesErr error
}

// prepare adds the layer to the image. The same image and programs give the same
// one, with the same ID.
func (c *comparison) prepare(ctx context.Context) (*made, error) { return c.prepareFrom(ctx, c.Image) }

func (c *comparison) prepareFrom(ctx context.Context, name string) (*made, error) {
	found, err := c.Pull(ctx, name)
	if err != nil {
		return nil, err
	}
	base, err := c.Images.Inspect(found.Digest)
	if err != nil {
		return nil, err
	}
	_, raw, err := c.Images.Manifest(base)
	if err != nil {
		return nil, err
	}
	config, err := manifest.ParseConfig(raw)
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	fmt.Fprintln(sum, base.ID)
	var added int64
	for _, program := range []string{c.Meter, c.Prober} {
		n, err := addFile(sum, program)
		if err != nil {
			return nil, err
		}
		added += n
	}
	m := &made{
		added: added, images: c.Images, dir: c.dir, self: c.ours(c.id), user: config.Config.User, env: config.Config.Env,
		ours: tagged(c.id, hex.EncodeToString(sum.Sum(nil))[:12]),
	}
	m.foreign = "localhost/" + m.ours
	o := archive.CommitOptions{
		Name: m.ours, Command: "bulkhead compare", Created: time.Unix(0, 0),
		Changes: []string{`ENTRYPOINT ["` + meterPath + `"]`, `CMD ["hello"]`, `HEALTHCHECK NONE`},
	}
	changes := []workload.Change{{Kind: "A", Path: insideDir}, {Kind: "A", Path: meterPath}, {Kind: "A", Path: proberPath}, {Kind: "A", Path: scratchPath}}
	_, err = archive.Commit(ctx, c.Images, base, changes, c.layer, o)
	return m, err
}

func addFile(w io.Writer, name string) (int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return io.Copy(w, f)
}

// layer writes what is added to the image.
func (c *comparison) layer(w io.Writer) error {
	t := tar.NewWriter(w)
	dir := func(name string, mode int64) error {
		return t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name[1:] + "/", Mode: mode, ModTime: time.Unix(0, 0)})
	}
	file := func(name, from string) error {
		b, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		err = t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name[1:], Size: int64(len(b)), Mode: 0o755, ModTime: time.Unix(0, 0)})
		if err == nil {
			_, err = t.Write(b)
		}
		return err
	}
	for _, err := range []error{dir(insideDir, 0o755), file(meterPath, c.Meter), file(proberPath, c.Prober), dir(scratchPath, 0o1777)} {
		if err != nil {
			return err
		}
	}
	return t.Close()
}

// archive is a file that other engines load.
func (m *made) archive(ctx context.Context) (_ string, err error) {
	if m.saved != "" {
		return m.saved, nil
	}
	if err := m.images.Tag(m.ours, m.foreign); err != nil {
		return "", err
	}
	defer func() {
		_, e := output(context.WithoutCancel(ctx), m.self.args("image", "rm", m.foreign)...)
		err = errors.Join(err, e)
	}()
	f, err := os.Create(filepath.Join(m.dir, archiveFile))
	if err != nil {
		return "", err
	}
	err = archive.Save(ctx, m.images, f, archive.DockerArchive, m.foreign)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	m.saved = f.Name()
	return m.saved, nil
}

// runtimeRoot is a directory with the image's root file system, for runtimes. It is
// made once; who asks again gets the same directory, or the same error.
func (m *made) runtimeRoot(ctx context.Context) (string, error) {
	if m.files == "" && m.filesErr == nil {
		m.files, m.filesErr = m.unpack(ctx, runtimeRootDir)
	}
	return m.files, m.filesErr
}

// hostRoot is another such directory, for processes of this host. A runtime's
// container may write to its own, also to the programs that measure.
func (m *made) hostRoot(ctx context.Context) (string, error) { return m.unpack(ctx, hostRootDir) }

// unpack makes a directory with the image's root file system, with the owners that
// the image has, as root on this host.
func (m *made) unpack(ctx context.Context, to string) (_ string, err error) {
	name := newName("files")
	if _, err := output(ctx, append(m.self.begin("create"), "--name", name, "--network", "none", m.ours)...); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, m.self.remove(context.WithoutCancel(ctx), name)) }()
	tarball := filepath.Join(m.dir, "rootfs.tar")
	if _, err := output(ctx, m.self.args("export", "-o", tarball, name)...); err != nil {
		return "", err
	}
	dir := filepath.Join(m.dir, to)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	// tar as root keeps owners by their numbers, modes, and capabilities of files.
	if _, err := output(ctx, "tar", "--extract", "--file", tarball, "--directory", dir, "--numeric-owner", "--preserve-permissions", "--xattrs", "--xattrs-include=security.capability"); err != nil {
		return "", err
	}
	return dir, os.Remove(tarball)
}

// path is where a program of the image is looked for when its name has no slash.
func (m *made) path() string {
	for _, e := range m.env {
		if p, ok := strings.CutPrefix(e, "PATH="); ok {
			return p
		}
	}
	return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

// environment is what the image's programs get where nobody else adds to it.
func (m *made) environment() []string {
	return append([]string{"PATH=" + m.path()}, m.env...)
}
