// Package registry moves images between registries and the store, by the OCI
// distribution specification v1.1.
//
// A registry is hostile, and so is the network: documents are bounded, every
// blob is checked against the digest that led to it, and nothing but loopback
// is spoken to without TLS unless the user allows it for this registry.
package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/reference"
)

// Options of Pull and Push. The zero value is ready to use.
type Options struct {
	// Platform chooses from an index when pulling, and must be that of an image
	// that is in none. Zero chooses the host's, and takes what is in none.
	Platform manifest.Platform
	// Insecure allows plain http and unverified certificates. Plain http to a
	// loopback address needs no permission.
	Insecure bool
	// Credentials looks up who we are; nil is DefaultCredentials.
	Credentials authn.Keychain
	// Progress is told what happens. It is called by one goroutine at a time
	// and must not block for long. May be nil.
	Progress func(Event)
	// Parallel is how many layers move at a time; 0 is 4.
	Parallel int
	// Stall is how long an answer may bring no byte; 0 is a minute.
	Stall time.Duration
	// Transport replaces the connection to the network, for tests.
	Transport http.RoundTripper
}

// Step is what happens to a blob.
type Step string

// The steps. A layer goes through Waiting, then either Exists, or Download and
// Unpack; or through Upload; and ends with Done.
const (
	Resolved Step = "resolved" // a manifest was chosen; Digest is its own
	Waiting  Step = "waiting"
	Exists   Step = "exists" // nothing to transfer
	Download Step = "download"
	Unpack   Step = "unpack" // Bytes counts the plain archive, Total is 0: not known
	Upload   Step = "upload" // Digest is empty: Bytes and Total are of all blobs
	Done     Step = "done"
	Retry    Step = "retry" // Err says why
)

// Event is one piece of progress.
type Event struct {
	Step   Step
	Digest digest.Digest // of the manifest or layer
	Bytes  int64         // so far
	Total  int64         // 0 when not known
	Err    error
}

// Errors that callers branch on, beside image.ErrNotFound and those of unpack.
var (
	ErrUnauthorized = errors.New("access denied")
	ErrUnreachable  = errors.New("registry cannot be reached")
)

// session is one conversation with one repository.
type session struct {
	ref    reference.Reference
	repo   name.Repository
	auth   authn.Authenticator
	base   http.RoundTripper // before authentication
	client *http.Client

	report func(Event)
}

// newSession finds the credentials.
func newSession(ctx context.Context, ref reference.Reference, opts Options) (*session, error) {
	nameOpts := []name.Option{}
	if opts.Insecure {
		nameOpts = append(nameOpts, name.Insecure)
	}
	repo, err := name.NewRepository(ref.Name(), nameOpts...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", reference.ErrInvalid, err)
	}
	creds := opts.Credentials
	if creds == nil {
		creds = DefaultCredentials()
	}
	auth, err := authn.Resolve(ctx, creds, repo)
	if err != nil {
		return nil, fmt.Errorf("credentials for %s: %w", ref.Registry(), err)
	}
	return &session{ref: ref, repo: repo, auth: auth, base: newGuard(ref, opts), report: serialize(opts.Progress)}, nil
}

// connect makes a session that may pull and greets the registry.
func connect(ctx context.Context, ref reference.Reference, opts Options) (*session, error) {
	s, err := newSession(ctx, ref, opts)
	if err != nil {
		return nil, err
	}
	t, err := transport.NewWithContext(ctx, s.repo.Registry, s.auth, transport.NewRetry(s.base), []string{s.repo.Scope(transport.PullScope)})
	if err != nil {
		return nil, s.explain(err)
	}
	s.client = &http.Client{Transport: t, CheckRedirect: checkRedirect}
	return s, nil
}

func serialize(f func(Event)) func(Event) {
	if f == nil {
		return func(Event) {}
	}
	var mu sync.Mutex
	return func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		f(e)
	}
}

func checkRedirect(_ *http.Request, via []*http.Request) error {
	if len(via) >= 5 {
		return errors.New("stopped after 5 redirects")
	}
	return nil
}

// guard is the bottom of every connection: it keeps plain http to registries on
// loopback, bounds what is read of everything that is not a blob, and how long any answer
// may bring nothing.
type guard struct {
	next     http.RoundTripper
	insecure bool
	local    bool // the registry is on loopback; another must not lead there
	stall    time.Duration
}

func newGuard(ref reference.Reference, opts Options) http.RoundTripper {
	next := opts.Transport
	if next == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.DialContext = (&net.Dialer{Timeout: 20 * time.Second, KeepAlive: 30 * time.Second}).DialContext
		t.TLSHandshakeTimeout = 20 * time.Second
		t.ResponseHeaderTimeout = time.Minute
		t.MaxResponseHeaderBytes = 1 << 20
		if opts.Insecure {
			t.TLSClientConfig = insecureTLS()
		}
		next = t
	}
	registry := url.URL{Host: ref.Registry()}
	return &guard{next: next, insecure: opts.Insecure, local: isLoopback(registry.Hostname()), stall: cmp.Or(opts.Stall, time.Minute)}
}

type insecureError struct{ host string }

func (e *insecureError) Error() string {
	return fmt.Sprintf("%s offers only plain http, which must be allowed for it (insecure)", e.host)
}

// blobRequest marks the context of a request whose answer may be long.
type blobRequest struct{}

// maxDocument bounds answers that are not blobs: manifests, tokens, errors.
const maxDocument = manifest.MaxManifestBytes + 1

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !g.insecure && !(g.local && isLoopback(req.URL.Hostname())) {
		return nil, &insecureError{req.URL.Host}
	}
	if req.Header.Get("User-Agent") == "" || strings.HasPrefix(req.Header.Get("User-Agent"), "Go-http") {
		req = req.Clone(req.Context())
		req.Header.Set("User-Agent", "bulkhead")
	}
	ctx, cancel := context.WithCancel(req.Context())
	resp, err := g.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	resp.Body = &watchedBody{ReadCloser: resp.Body, stall: g.stall, cancel: cancel}
	if req.Context().Value(blobRequest{}) == nil || resp.StatusCode >= 300 {
		resp.Body = &limitedBody{resp.Body, maxDocument}
	}
	return resp, nil
}

// isLoopback tells by the name alone: a resolver may say anything.
func isLoopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

var errStalled = errors.New("the connection brought nothing for a minute")

// watchedBody ends a connection that brings nothing while somebody reads.
type watchedBody struct {
	io.ReadCloser
	stall  time.Duration
	cancel context.CancelFunc
	ended  bool
}

func (w *watchedBody) Read(p []byte) (int, error) {
	timer := time.AfterFunc(w.stall, w.cancel)
	n, err := w.ReadCloser.Read(p)
	w.ended = !timer.Stop() || w.ended
	if w.ended && err != nil && !errors.Is(err, io.EOF) {
		err = errStalled
	}
	return n, err
}

func (w *watchedBody) Close() error {
	defer w.cancel()
	return w.ReadCloser.Close()
}

type limitedBody struct {
	io.ReadCloser
	left int64
}

func (l *limitedBody) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, fmt.Errorf("%w: the registry's answer is longer than %d bytes", manifest.ErrInvalid, int64(maxDocument))
	}
	n, err := l.ReadCloser.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}

func (s *session) url(kind, what string) string {
	return fmt.Sprintf("%s://%s/v2/%s/%s/%s", s.repo.Scheme(), s.repo.RegistryStr(), s.repo.RepositoryStr(), kind, what)
}
