package registry_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/archive"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/imagetest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/reference"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/registry"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
)

// TestMain keeps the credentials of whoever runs the tests out of them.
func TestMain(m *testing.M) {
	if ref := os.Getenv("REGISTRY_TEST_PULL"); ref != "" { // a process to be killed
		s, err := image.Open(os.Getenv("REGISTRY_TEST_ROOT"))
		if err != nil {
			log.Fatal(err)
		}
		r, err := reference.Parse(ref)
		if err != nil {
			log.Fatal(err)
		}
		if _, err := registry.Pull(context.Background(), s, r, registry.Options{}); err != nil {
			log.Fatal(err)
		}
		os.Exit(0)
	}
	dir, err := os.MkdirTemp("", "registry-test")
	if err != nil {
		log.Fatal(err)
	}
	for _, v := range []string{"HOME", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"} {
		os.Setenv(v, dir)
	}
	os.Unsetenv("REGISTRY_AUTH_FILE")
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// serve starts a registry on loopback; wrap may change what it answers.
func serve(t *testing.T, wrap func(http.Handler) http.Handler) (host string) {
	t.Helper()
	var h http.Handler = ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	if wrap != nil {
		h = wrap(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func parse(t *testing.T, s string) reference.Reference {
	t.Helper()
	r, err := reference.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func store(t *testing.T) (*image.Store, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: layers have owners and devices")
	}
	root := t.TempDir()
	s, err := image.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return s, root
}

func testImage(t *testing.T) *imagetest.Image {
	return imagetest.New(t, manifest.RunConfig{Cmd: []string{"/a"}},
		imagetest.Tar(t, imagetest.File("a", strings.Repeat("layer one ", 50_000))),
		imagetest.Tar(t, imagetest.File("b", "layer two")))
}

// loaded puts the test image into a store.
func loaded(t *testing.T, name string) (*image.Store, image.Image) {
	t.Helper()
	s, _ := store(t)
	dir := t.TempDir()
	testImage(t).Layout(t, dir, "latest")
	images, err := archive.Load(context.Background(), s, dir, archive.LoadOptions{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return s, images[0]
}

// TestGreetings counts how often a registry is asked who may come in.
func TestGreetings(t *testing.T) {
	var greetings atomic.Int64
	host := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" {
				greetings.Add(1)
			}
			next.ServeHTTP(w, r)
		})
	})
	from, im := loaded(t, "x")
	ref := parse(t, host+"/x:1")
	if _, err := registry.Push(context.Background(), from, im, ref, registry.Options{}); err != nil {
		t.Fatal(err)
	}
	pushing := greetings.Swap(0)
	to, _ := store(t)
	if _, err := registry.Pull(context.Background(), to, ref, registry.Options{}); err != nil {
		t.Fatal(err)
	}
	if pulling := greetings.Load(); pushing != 1 || pulling != 1 {
		t.Errorf("push greets %d times, pull %d times; want one each", pushing, pulling)
	}
}

func TestPushPull(t *testing.T) {
	ctx := context.Background()
	host := serve(t, nil)
	from, im := loaded(t, "x")
	ref := parse(t, host+"/team/x:1")
	var uploaded atomic.Int64
	d, err := registry.Push(ctx, from, im, ref, registry.Options{Progress: func(e registry.Event) {
		if e.Step == registry.Upload {
			uploaded.Store(e.Bytes)
		}
	}})
	if err != nil || d != im.Digest || uploaded.Load() == 0 {
		t.Fatalf("Push = %s, %v, %d bytes reported; want %s", d, err, uploaded.Load(), im.Digest)
	}
	to, root := store(t)
	steps := make(map[registry.Step]int)
	got, err := registry.Pull(ctx, to, ref, registry.Options{Progress: func(e registry.Event) { steps[e.Step]++ }})
	if err != nil || got.Digest != im.Digest || !slices.Equal(got.Config.Cmd, []string{"/a"}) {
		t.Fatalf("Pull = %+v, %v", got, err)
	}
	if steps[registry.Resolved] != 1 || steps[registry.Waiting] != 2 || steps[registry.Done] != 2 || steps[registry.Download] == 0 || steps[registry.Unpack] == 0 {
		t.Errorf("progress: %v", steps)
	}
	for _, name := range []string{host + "/team/x:1", host + "/team/x@" + d.String()} {
		if got, err := to.Resolve(name); err != nil || got.Digest != d {
			t.Errorf("Resolve(%s) = %s, %v", name, got.Digest, err)
		}
	}
	clear(steps)
	if _, err := registry.Pull(ctx, to, parse(t, host+"/team/x@"+d.String()), registry.Options{Progress: func(e registry.Event) { steps[e.Step]++ }}); err != nil || steps[registry.Download] > 0 || steps[registry.Exists] != 2 {
		t.Errorf("second pull: %v, progress %v; want nothing downloaded", err, steps)
	}
	checkClean(t, root)
}

func checkClean(t *testing.T, root string) {
	t.Helper()
	for _, dir := range []string{"tmp"} {
		if names, err := os.ReadDir(filepath.Join(root, "images", dir)); err != nil || len(names) > 0 {
			t.Errorf("left in %s: %v, %v", dir, names, err)
		}
	}
}

// TestPlatforms pulls through an index.
func TestPlatforms(t *testing.T) {
	ctx := context.Background()
	host := serve(t, nil)
	from, im := loaded(t, "x")
	if _, err := registry.Push(ctx, from, im, parse(t, host+"/x:one"), registry.Options{}); err != nil {
		t.Fatal(err)
	}
	raw, _, err := from.Manifest(im)
	if err != nil {
		t.Fatal(err)
	}
	index, err := json.Marshal(manifest.Index{SchemaVersion: 2, MediaType: manifest.OCIIndex, Manifests: []manifest.Descriptor{
		{MediaType: manifest.OCIManifest, Digest: im.Digest, Size: int64(len(raw)), Platform: &manifest.Platform{OS: "linux", Architecture: "s390x"}},
		{MediaType: manifest.OCIManifest, Digest: im.Digest, Size: int64(len(raw)), Platform: &im.Platform},
	}})
	if err != nil {
		t.Fatal(err)
	}
	put(t, host, "/v2/x/manifests/multi", manifest.OCIIndex, index)
	to, root := store(t)
	got, err := registry.Pull(ctx, to, parse(t, host+"/x:multi"), registry.Options{})
	if err != nil || got.Digest != im.Digest {
		t.Fatalf("Pull = %s, %v; want %s", got.Digest, err, im.Digest)
	}
	if _, err := to.Resolve(host + "/x@" + digest.FromBytes(index).String()); err != nil {
		t.Errorf("the index's digest does not lead to the image: %v", err)
	}
	var none *manifest.NoPlatformError
	_, err = registry.Pull(ctx, to, parse(t, host+"/x:multi"), registry.Options{Platform: manifest.Platform{OS: "linux", Architecture: "riscv64"}})
	if !errors.As(err, &none) || !strings.Contains(err.Error(), "linux/s390x") {
		t.Errorf("other platform: %v", err)
	}
	// A tag without an index is for one platform.
	_, err = registry.Pull(ctx, to, parse(t, host+"/x:one"), registry.Options{Platform: manifest.Platform{OS: "linux", Architecture: "riscv64"}})
	if !errors.As(err, &none) || !strings.Contains(err.Error(), "only for "+im.Platform.String()) {
		t.Errorf("other platform, without an index: %v", err)
	}
	if got, err := to.Resolve(host + "/x:one"); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("the image for another platform is here: %s, %v", got.Digest, err)
	}
	if _, err := registry.Pull(ctx, to, parse(t, host+"/x:one"), registry.Options{Platform: im.Platform}); err != nil {
		t.Errorf("the image's own platform: %v", err)
	}
	checkClean(t, root)
}

// TestNestedIndexes pulls through indexes that lie in indexes.
func TestNestedIndexes(t *testing.T) {
	ctx := context.Background()
	host := serve(t, nil)
	from, im := loaded(t, "x")
	if _, err := registry.Push(ctx, from, im, parse(t, host+"/x:one"), registry.Options{}); err != nil {
		t.Fatal(err)
	}
	raw, _, err := from.Manifest(im)
	if err != nil {
		t.Fatal(err)
	}
	index := func(mediaType string, raw []byte, p *manifest.Platform) []byte {
		out, err := json.Marshal(manifest.Index{SchemaVersion: 2, MediaType: manifest.OCIIndex, Manifests: []manifest.Descriptor{
			{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw)), Platform: p},
		}})
		if err != nil {
			t.Fatal(err)
		}
		put(t, host, "/v2/x/manifests/"+digest.FromBytes(out).String(), manifest.OCIIndex, out)
		return out
	}
	one := index(manifest.OCIManifest, raw, &im.Platform)
	two := index(manifest.OCIIndex, one, &im.Platform)
	three := index(manifest.OCIIndex, two, nil)
	for name, tt := range map[string]struct {
		top  []byte
		text string // "" for none
	}{
		"two":                         {two, ""},
		"three":                       {three, ""},
		"four":                        {index(manifest.OCIIndex, three, nil), "nested deeper than 3"},
		"for another platform":        {index(manifest.OCIIndex, one, &manifest.Platform{OS: "linux", Architecture: "s390x"}), "only for linux/s390x"},
		"an index that is a manifest": {index(manifest.OCIIndex, raw, &im.Platform), "the index says"},
		"a manifest that is an index": {index(manifest.OCIManifest, one, &im.Platform), "the index says"},
	} {
		to, _ := store(t)
		got, err := registry.Pull(ctx, to, parse(t, host+"/x@"+digest.FromBytes(tt.top).String()), registry.Options{})
		switch {
		case tt.text == "" && (err != nil || got.Digest != im.Digest):
			t.Errorf("%s: %s, %v; want %s", name, got.Digest, err, im.Digest)
		case tt.text != "" && (err == nil || !strings.Contains(err.Error(), tt.text)):
			t.Errorf("%s: %v; want %q", name, err, tt.text)
		}
	}
}

// TestPruneAfterMove pulls a tag that moves, by the tag and by digests.
func TestPruneAfterMove(t *testing.T) {
	ctx := context.Background()
	host := serve(t, nil)
	from, _ := store(t)
	ref := parse(t, host+"/x:1")
	push := func(content string) image.Image {
		t.Helper()
		dir := t.TempDir()
		imagetest.New(t, manifest.RunConfig{}, imagetest.Tar(t, imagetest.File("f", content))).Layout(t, dir, "latest")
		images, err := archive.Load(ctx, from, dir, archive.LoadOptions{Name: content})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := registry.Push(ctx, from, images[0], ref, registry.Options{}); err != nil {
			t.Fatal(err)
		}
		return images[0]
	}
	to, _ := store(t)
	pull := func(ref reference.Reference) image.Image {
		t.Helper()
		im, err := registry.Pull(ctx, to, ref, registry.Options{})
		if err != nil || im.Dangling {
			t.Fatalf("Pull(%s) = %+v, %v", ref, im, err)
		}
		return im
	}
	old := push("old")
	pull(ref)
	pinned := push("pinned")
	pull(ref)
	pull(ref.WithDigest(pinned.Digest))
	push("new")
	pull(ref)
	for _, im := range []image.Image{old, pinned} {
		name := ref.WithDigest(im.Digest).String()
		if got, err := to.Resolve(name); err != nil || got.Dangling != (im.Digest == old.Digest) {
			t.Errorf("Resolve(%q): dangling %v, %v", name, got.Dangling, err)
		}
	}
	if rep, err := to.Prune(false, nil); err != nil || !slices.Equal(rep.Deleted, []digest.Digest{old.Digest}) || rep.Bytes == 0 {
		t.Errorf("Prune() = %+v, %v; want the image whose tag has moved", rep, err)
	}
	if list, err := to.List(); err != nil || len(list) != 2 {
		t.Errorf("%d images are left, %v", len(list), err)
	}
}

func put(t *testing.T, host, path, mediaType string, body []byte) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPut, "http://"+host+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode >= 300 {
		t.Fatalf("PUT %s: %s", path, resp.Status)
	}
}

// blobs changes the answers to GET of blobs longer than 1000 bytes.
func blobs(change func(w http.ResponseWriter, r *http.Request, whole []byte)) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/sha256:") {
				next.ServeHTTP(w, r)
				return
			}
			plain := r.Clone(r.Context())
			plain.Header.Del("Range")
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, plain)
			if rec.Body.Len() < 1000 {
				next.ServeHTTP(w, r)
				return
			}
			change(w, r, rec.Body.Bytes())
		})
	}
}

func TestBadBlobs(t *testing.T) {
	var requests atomic.Int64
	for name, tt := range map[string]struct {
		change func(w http.ResponseWriter, r *http.Request, whole []byte)
		want   error // nil: the pull works all the same
	}{
		"changed": {func(w http.ResponseWriter, _ *http.Request, p []byte) {
			p[len(p)/2] ^= 1
			w.Write(p)
		}, unpack.ErrDigest},
		"longer": {func(w http.ResponseWriter, _ *http.Request, p []byte) {
			w.Write(p)
			w.Write([]byte("more"))
		}, unpack.ErrDigest},
		"endless": {func(w http.ResponseWriter, _ *http.Request, p []byte) {
			for range 10_000 {
				if _, err := w.Write(p); err != nil {
					return
				}
			}
		}, unpack.ErrDigest},
		"always cut": {func(w http.ResponseWriter, _ *http.Request, p []byte) {
			w.Header().Set("Content-Length", strconv.Itoa(len(p)))
			w.Write(p[:len(p)/2])
		}, unpack.ErrTruncated},
		"cut once, resumed": {func(w http.ResponseWriter, r *http.Request, p []byte) {
			if from, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
				n, _ := strconv.Atoi(strings.TrimSuffix(from, "-"))
				w.WriteHeader(http.StatusPartialContent)
				w.Write(p[n:])
				return
			}
			w.Header().Set("Content-Length", strconv.Itoa(len(p)))
			w.Write(p[:len(p)/2])
		}, nil},
		"cut once, started over": {func(w http.ResponseWriter, _ *http.Request, p []byte) {
			if requests.Add(1)%2 == 0 {
				w.Write(p)
				return
			}
			w.Header().Set("Content-Length", strconv.Itoa(len(p)))
			w.Write(p[:len(p)/2])
		}, nil},
		"gone": {func(w http.ResponseWriter, _ *http.Request, _ []byte) { w.WriteHeader(http.StatusNotFound) }, image.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, im := loaded(t, "x")
			host := serve(t, blobs(tt.change))
			ref := parse(t, host+"/x:1")
			if _, err := registry.Push(context.Background(), from, im, ref, registry.Options{}); err != nil {
				t.Fatal(err)
			}
			to, root := store(t)
			_, err := registry.Pull(context.Background(), to, ref, registry.Options{})
			if !errors.Is(err, tt.want) || err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line of %v", err, tt.want)
			}
			checkClean(t, root)
			// What was broken off goes on later from the blobs that came whole.
			left, _ := os.ReadDir(filepath.Join(root, "images", "blobs", "sha256"))
			if refused := errors.Is(tt.want, unpack.ErrDigest); refused == (len(left) > 0) {
				t.Errorf("blobs in the store: %v", left)
			}
			if list, err := to.List(); err != nil || len(list) != map[bool]int{true: 1, false: 0}[tt.want == nil] {
				t.Errorf("images %d, %v", len(list), err)
			}
		})
	}
}

// TestStalledAnswers has registries that stop in the middle of any answer and
// keep the connection.
func TestStalledAnswers(t *testing.T) {
	stalling := func(w http.ResponseWriter, r *http.Request, p []byte) {
		w.Write(p)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	for name, wrap := range map[string]func(http.Handler) http.Handler{
		"manifest": func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/") {
					stalling(w, r, []byte("{"))
					return
				}
				next.ServeHTTP(w, r)
			})
		},
		"error": func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/") {
					w.WriteHeader(http.StatusTeapot)
					stalling(w, r, []byte("{"))
					return
				}
				next.ServeHTTP(w, r)
			})
		},
		"blob": blobs(func(w http.ResponseWriter, r *http.Request, p []byte) { stalling(w, r, p[:100]) }),
		"resumed blob that starts over": blobs(func(w http.ResponseWriter, r *http.Request, p []byte) {
			if r.Header.Get("Range") != "" {
				stalling(w, r, p[:50])
				return
			}
			w.Header().Set("Content-Length", strconv.Itoa(len(p)))
			w.Write(p[:100])
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, im := loaded(t, "x")
			host := serve(t, wrap)
			ref := parse(t, host+"/x:1")
			if _, err := registry.Push(context.Background(), from, im, ref, registry.Options{}); err != nil {
				t.Fatal(err)
			}
			to, root := store(t)
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_, err := registry.Pull(ctx, to, ref, registry.Options{Stall: 200 * time.Millisecond})
			if err == nil || ctx.Err() != nil {
				t.Errorf("got %v; want an error, and soon", err)
			}
			checkClean(t, root)
		})
	}
}

func TestRefusals(t *testing.T) {
	ctx := context.Background()
	s, root := store(t)
	answer := func(status int, header, body string) func(http.Handler) http.Handler {
		return func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/v2/" {
					return
				}
				if k, v, ok := strings.Cut(header, ": "); ok {
					w.Header().Set(k, v)
				}
				w.WriteHeader(status)
				io.WriteString(w, body)
			})
		}
	}
	for name, tt := range map[string]struct {
		host string
		want error
		text string
	}{
		"unknown image":   {serve(t, nil), image.ErrNotFound, "has no"},
		"unauthorized":    {serve(t, answer(401, "WWW-Authenticate: Basic realm=x", "")), registry.ErrUnauthorized, "credentials"},
		"forbidden":       {serve(t, answer(403, "", "")), registry.ErrUnauthorized, ""},
		"rate limit":      {serve(t, answer(429, "", "")), nil, "limits how often"},
		"wrong digest":    {serve(t, answer(200, "Docker-Content-Digest: sha256:"+strings.Repeat("0", 64), `{"schemaVersion":2}`)), unpack.ErrDigest, ""},
		"html":            {serve(t, answer(200, "", "<html>log in</html>")), manifest.ErrInvalid, "not JSON"},
		"huge manifest":   {serve(t, answer(200, "", strings.Repeat(" ", 5<<20))), manifest.ErrInvalid, "longer than"},
		"schema 1":        {serve(t, answer(200, "", `{"schemaVersion":1,"fsLayers":[]}`)), manifest.ErrInvalid, "schema 1"},
		"redirect loop":   {serve(t, answer(302, "Location: /v2/x/manifests/latest", "")), nil, "redirects"},
		"leads to http":   {serve(t, answer(302, "Location: http://192.0.2.1/x", "")), nil, "plain http"},
		"nothing listens": {closedPort(t), registry.ErrUnreachable, "refused"},
	} {
		_, err := registry.Pull(ctx, s, parse(t, tt.host+"/x"), registry.Options{})
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: got %v, want %v with %q", name, err, tt.want, tt.text)
		} else if strings.Contains(err.Error(), "\n") || len(err.Error()) > 600 {
			t.Errorf("%s: not one sentence: %q", name, err)
		}
	}
	checkClean(t, root)
}

func closedPort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// noTransport counts what would have gone to the network.
type noTransport struct {
	mu  sync.Mutex
	got []string
}

func (n *noTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.got = append(n.got, r.URL.Scheme+" "+r.Header.Get("Authorization"))
	return nil, &net.DNSError{Err: "no such host", Name: r.URL.Host}
}

// TestPlainHTTP checks that nothing goes out in the clear unasked, least of all
// a password, not even to private addresses.
func TestPlainHTTP(t *testing.T) {
	s, _ := store(t)
	for _, host := range []string{"registry.example", "10.0.0.1:5000", "192.168.1.1", "host.local:5000"} {
		n := new(noTransport)
		_, err := registry.Pull(context.Background(), s, parse(t, host+"/x"), registry.Options{Transport: n})
		if err == nil || len(n.got) == 0 || strings.Contains(strings.Join(n.got, ","), "http ") {
			t.Errorf("%s: requests %q, error %v; want https alone", host, n.got, err)
		}
		if strings.Contains(err.Error(), "\n") || !errors.Is(err, registry.ErrUnreachable) && !strings.Contains(err.Error(), "plain http") {
			t.Errorf("%s: got %v, want one line that says what is wrong", host, err)
		}
		n = new(noTransport)
		if _, err := registry.Pull(context.Background(), s, parse(t, host+"/x"), registry.Options{Transport: n, Insecure: true}); err == nil || !slices.Contains(n.got, "http ") {
			t.Errorf("%s, insecure: requests %q, error %v; want http tried", host, n.got, err)
		}
	}
}

// misleading is a registry with TLS that leads to other addresses.
type misleading struct {
	challenge, location string

	mu  sync.Mutex
	got []string // the requests to others, and those in the clear
}

func (m *misleading) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: r}
	switch {
	case r.URL.Scheme != "https" || r.URL.Host != "registry.example":
		m.mu.Lock()
		defer m.mu.Unlock()
		m.got = append(m.got, r.URL.String())
	case r.URL.Path == "/v2/" && m.challenge != "":
		answer.StatusCode = http.StatusUnauthorized
		answer.Header.Set("WWW-Authenticate", m.challenge)
	case r.URL.Path != "/v2/":
		answer.StatusCode = http.StatusTemporaryRedirect
		answer.Header.Set("Location", m.location)
	}
	return answer, nil
}

// TestLedToLoopback has a registry elsewhere that has us ask services of this machine,
// which take who comes from here for a friend.
func TestLedToLoopback(t *testing.T) {
	s, _ := store(t)
	for name, tt := range map[string]struct {
		leads *misleading
		text  string
	}{
		"redirect": {&misleading{location: "http://127.0.0.1:9/admin?do=it"}, "plain http"},
		"by name":  {&misleading{location: "http://localhost:9/admin?do=it"}, "plain http"},
		"realm":    {&misleading{challenge: `Bearer realm="http://[::1]:9/admin",service="x"`}, "realm"},
	} {
		_, err := registry.Pull(context.Background(), s, parse(t, "registry.example/x"), registry.Options{Transport: tt.leads})
		if err == nil || len(tt.leads.got) > 0 || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: asked %q, error %v; want that nobody is asked", name, tt.leads.got, err)
		}
	}
}

// TestEncodedBlobs has a registry whose files are compressed, as layers are, and called so
// in the header in which it would say that of the way here.
func TestEncodedBlobs(t *testing.T) {
	layer := imagetest.Tar(t, imagetest.File("a", strings.Repeat("text ", 1000)))
	dir := t.TempDir()
	imagetest.NewPacked(t, manifest.RunConfig{}, manifest.OCILayerGzip, [][]byte{layer}, [][]byte{imagetest.Gzip(layer)}).Layout(t, dir, "latest")
	from, _ := store(t)
	images, err := archive.Load(context.Background(), from, dir, archive.LoadOptions{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	host := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, images[0].Layers[0].Digest.String()) {
				w.Header().Set("Content-Encoding", "gzip")
			}
			next.ServeHTTP(w, r)
		})
	})
	ref := parse(t, host+"/x:1")
	if _, err := registry.Push(context.Background(), from, images[0], ref, registry.Options{}); err != nil {
		t.Fatal(err)
	}
	to, _ := store(t)
	if _, err := registry.Pull(context.Background(), to, ref, registry.Options{}); err != nil {
		t.Error(err)
	}
}

// protected wants a password.
func protected(user, password string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if u, p, _ := r.BasicAuth(); u != user || p != password {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func TestCredentials(t *testing.T) {
	host := serve(t, protected("me", "secret"))
	from, im := loaded(t, "x")
	ref := parse(t, host+"/ns/x:1")
	auth := base64.StdEncoding.EncodeToString([]byte("me:secret"))
	write := func(t *testing.T, path, text string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	entry := func(key string) string { return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, key, auth) }
	for name, prepare := range map[string]func(t *testing.T, dir string){
		"docker config": func(t *testing.T, dir string) {
			write(t, dir+"/config.json", entry(host))
			t.Setenv("DOCKER_CONFIG", dir)
		},
		"docker home": func(t *testing.T, dir string) {
			write(t, dir+"/.docker/config.json", entry(host))
			t.Setenv("HOME", dir)
		},
		"podman file": func(t *testing.T, dir string) {
			write(t, dir+"/a.json", entry(host))
			t.Setenv("REGISTRY_AUTH_FILE", dir+"/a.json")
		},
		"podman runtime dir": func(t *testing.T, dir string) {
			write(t, dir+"/containers/auth.json", entry(host))
			t.Setenv("XDG_RUNTIME_DIR", dir)
		},
		"podman namespace": func(t *testing.T, dir string) {
			write(t, dir+"/containers/auth.json", entry(host+"/ns"))
			t.Setenv("XDG_RUNTIME_DIR", dir)
		},
		"podman namespaces": func(t *testing.T, dir string) {
			write(t, dir+"/containers/auth.json", fmt.Sprintf(`{"auths":{%q:{"auth":"bm86bm8="},%q:{"auth":"bm86bm8="},%q:{"auth":%q}}}`,
				host, host+"/ns/xy", host+"/ns", auth))
			t.Setenv("XDG_RUNTIME_DIR", dir)
		},
		"host beside another namespace": func(t *testing.T, dir string) {
			write(t, dir+"/containers/auth.json", fmt.Sprintf(`{"auths":{%q:{"auth":"bm86bm8="},%q:{"auth":%q}}}`, host+"/other", host, auth))
			t.Setenv("XDG_RUNTIME_DIR", dir)
		},
		"old docker config": func(t *testing.T, dir string) {
			write(t, dir+"/config.json", entry("https://"+host+"/v1/"))
			t.Setenv("DOCKER_CONFIG", dir)
		},
		"second file": func(t *testing.T, dir string) {
			write(t, dir+"/a.json", entry("other.example"))
			t.Setenv("REGISTRY_AUTH_FILE", dir+"/a.json")
			write(t, dir+"/config.json", entry(host))
			t.Setenv("DOCKER_CONFIG", dir)
		},
		"helper": func(t *testing.T, dir string) {
			write(t, dir+"/config.json", fmt.Sprintf(`{"credHelpers":{%q:"bulkheadtest"}}`, host))
			write(t, dir+"/docker-credential-bulkheadtest", "#!/bin/sh\n"+
				`read host; [ "$1 $host" = "get `+host+`" ] || exit 1; echo '{"Username":"me","Secret":"secret"}'`+"\n")
			t.Setenv("DOCKER_CONFIG", dir)
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			prepare(t, t.TempDir())
			if _, err := registry.Push(context.Background(), from, im, ref, registry.Options{}); err != nil {
				t.Errorf("push: %v", err)
			}
			to, _ := store(t)
			if _, err := registry.Pull(context.Background(), to, ref, registry.Options{}); err != nil {
				t.Errorf("pull: %v", err)
			}
		})
	}
	for name, text := range map[string]string{"none": `{}`, "another namespace": entry(host + "/other"), "a part of the name": entry(host + "/n"),
		"below": entry(host + "/ns/x/y"), "another namespace, with scheme": entry("https://" + host + "/other"), "wrong": strings.Replace(entry(host), auth, base64.StdEncoding.EncodeToString([]byte("me:no")), 1)} {
		path := filepath.Join(t.TempDir(), "c.json")
		write(t, path, text)
		_, err := registry.Pull(context.Background(), from, ref, registry.Options{Credentials: registry.FileCredentials(path)})
		if !errors.Is(err, registry.ErrUnauthorized) {
			t.Errorf("%s: got %v, want ErrUnauthorized", name, err)
		}
	}
	path := filepath.Join(t.TempDir(), "c.json")
	write(t, path, `{"auths":`)
	if _, err := registry.Pull(context.Background(), from, ref, registry.Options{Credentials: registry.FileCredentials(path)}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("broken file: %v", err)
	}
}

// TestBearer walks the way of most registries: a token from another address.
func TestBearer(t *testing.T) {
	var host string
	host = serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/token":
				io.WriteString(w, `{"token":"good"}`)
			case r.Header.Get("Authorization") != "Bearer good":
				w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+host+`/token",service="test"`)
				w.WriteHeader(http.StatusUnauthorized)
			default:
				next.ServeHTTP(w, r)
			}
		})
	})
	from, im := loaded(t, "x")
	ref := parse(t, host+"/x:1")
	if _, err := registry.Push(context.Background(), from, im, ref, registry.Options{}); err != nil {
		t.Fatal(err)
	}
	to, _ := store(t)
	if _, err := registry.Pull(context.Background(), to, ref, registry.Options{}); err != nil {
		t.Error(err)
	}
}

func TestCancelledPull(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	from, im := loaded(t, "x")
	release := make(chan struct{})
	host := serve(t, blobs(func(w http.ResponseWriter, r *http.Request, p []byte) {
		w.Write(p[:100])
		w.(http.Flusher).Flush()
		cancel()
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer close(release)
	ref := parse(t, host+"/x:1")
	if _, err := registry.Push(context.Background(), from, im, ref, registry.Options{}); err != nil {
		t.Fatal(err)
	}
	to, root := store(t)
	if _, err := registry.Pull(ctx, to, ref, registry.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	checkClean(t, root)
}

// TestKilledPull kills a process in the middle of a download. The next pull
// works, and nothing is left.
func TestKilledPull(t *testing.T) {
	from, im := loaded(t, "x")
	var stall atomic.Bool
	stall.Store(true)
	started := make(chan struct{}, 8)
	host := serve(t, blobs(func(w http.ResponseWriter, r *http.Request, p []byte) {
		if !stall.Load() {
			w.Write(p)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(p)))
		w.Write(p[:len(p)/2])
		w.(http.Flusher).Flush()
		started <- struct{}{}
		<-r.Context().Done()
	}))
	ref := parse(t, host+"/x:1")
	if _, err := registry.Push(context.Background(), from, im, ref, registry.Options{}); err != nil {
		t.Fatal(err)
	}
	_, root := store(t)
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "REGISTRY_TEST_PULL="+ref.String(), "REGISTRY_TEST_ROOT="+root)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-started
	if names, err := os.ReadDir(filepath.Join(root, "images", "tmp")); err != nil || len(names) == 0 {
		t.Errorf("the pull is not under way: %v, %v", names, err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	stall.Store(false)
	s, err := image.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	checkClean(t, root)
	if list, err := s.List(); err != nil || len(list) > 0 {
		t.Errorf("half an image is visible: %v, %v", list, err)
	}
	if got, err := registry.Pull(context.Background(), s, ref, registry.Options{}); err != nil || got.Digest != im.Digest {
		t.Errorf("the next pull: %s, %v", got.Digest, err)
	}
	checkClean(t, root)
}
