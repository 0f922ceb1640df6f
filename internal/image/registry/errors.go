package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"syscall"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
)

func insecureTLS() *tls.Config { return &tls.Config{InsecureSkipVerify: true} } //nolint:gosec // asked for by the user

// explain turns what the libraries return into one sentence that names the
// registry. Errors about content are left as they are.
func (s *session) explain(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	host := s.ref.Registry()
	var insecure *insecureError
	if errors.As(err, &insecure) {
		return fmt.Errorf("registry %s: %w", host, insecure)
	}
	var answer *transport.Error
	if errors.As(err, &answer) {
		return s.explainAnswer(answer)
	}
	if cause, ok := networkCause(err); ok {
		return fmt.Errorf("%w: %s: %s", ErrUnreachable, host, cause)
	}
	return err
}

func (s *session) explainAnswer(e *transport.Error) error {
	host := s.ref.Registry()
	switch e.StatusCode {
	case http.StatusNotFound:
		return fmt.Errorf("%w: registry %s has no %s", image.ErrNotFound, host, s.ref.Familiar())
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w: registry %s refuses %s: it does not exist, or needs other credentials", ErrUnauthorized, host, s.ref.Familiar())
	case http.StatusTooManyRequests:
		return fmt.Errorf("registry %s limits how often it may be asked: wait, or log in", host)
	}
	detail := http.StatusText(e.StatusCode)
	if len(e.Errors) > 0 {
		detail = clip(string(e.Errors[0].Code) + ": " + e.Errors[0].Message)
	}
	return fmt.Errorf("registry %s answers with status %d: %s", host, e.StatusCode, detail)
}

// networkCause names the reason for which there is no connection.
func networkCause(err error) (string, bool) {
	var dns *net.DNSError
	var errno syscall.Errno
	var unknownCA x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var certificate x509.CertificateInvalidError
	var record tls.RecordHeaderError
	var request *url.Error
	switch {
	case errors.As(err, &dns):
		return "no address for " + clip(dns.Name), true
	case errors.As(err, &unknownCA):
		return "its certificate is signed by an unknown authority", true
	case errors.As(err, &hostname), errors.As(err, &certificate):
		return "its certificate is not valid for this name or time", true
	case errors.As(err, &record):
		return "it does not speak TLS", true
	case errors.As(err, &errno):
		return errno.Error(), true
	case errors.Is(err, errStalled):
		return errStalled.Error(), true
	case errors.As(err, &request):
		if request.Timeout() {
			return "no answer in time", true
		}
		return clip(request.Err.Error()), true
	}
	return "", false
}

// clip keeps the other side's words short and printable.
func clip(s string) string {
	out := make([]rune, 0, 200)
	for _, r := range s {
		if len(out) == 200 {
			return string(out) + "…"
		}
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			r = ' '
		}
		out = append(out, r)
	}
	return string(out)
}
