package probe

import (
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// reach judges one connection.
func reach(err error) outcome {
	var p prober
	p.add("connect", "", err)
	return unreached(&view{o: &p.o})
}

// TestHear: whoever took a connection and has not said the word is not known to be
// somebody else before he has said another.
func TestHear(t *testing.T) {
	const token = "the word"
	for _, tt := range []struct {
		name, said string
		ends       bool
		want       state
	}{
		{"the word", token, false, open},
		{"another word", "SSH-2.0-x", false, shut},
		{"an end", "", true, shut},
		{"too late", "", false, unclear},
	} {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(pair[1], []byte(tt.said)); err != nil {
			t.Fatal(err)
		}
		if tt.ends {
			unix.Close(pair[1])
		}
		if got := reach(hear(pair[0], token)); got.state != tt.want {
			t.Errorf("%s: %+v", tt.name, got)
		}
		unix.Close(pair[0])
		if !tt.ends {
			unix.Close(pair[1])
		}
	}
}

// TestFullQueue: a listener that takes nobody on is there all the same.
func TestFullQueue(t *testing.T) {
	name := "@bulkhead-test-" + t.Name() + "-" + strconv.Itoa(os.Getpid())
	l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l)
	if got := reach(connectUnix(name)); got.state != shut {
		t.Errorf("nobody there: %+v", got)
	}
	if err := unix.Bind(l, &unix.SockaddrUnix{Name: name}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(l, 0); err != nil {
		t.Fatal(err)
	}
	if got := reach(connectUnix(name)); got.state != open {
		t.Errorf("the first: %+v", got)
	}
	if got := reach(connectUnix(name)); got.state != unclear {
		t.Errorf("the second: %+v", got)
	}
}

// TestUnreached: an error that does not tell of the other end is no pass.
func TestUnreached(t *testing.T) {
	for err, want := range map[error]state{
		nil: open, unix.ECONNREFUSED: shut, unix.ENETUNREACH: shut, unix.EHOSTUNREACH: shut, unix.EPERM: shut, unix.EADDRNOTAVAIL: shut,
		unix.EMFILE: unclear, unix.ENFILE: unclear, unix.ENOBUFS: unclear, unix.ENOMEM: unclear, unix.ETIMEDOUT: unclear, unix.EINVAL: unclear,
		unix.ECONNRESET: unclear,
	} {
		if got := reach(err); got.state != want {
			t.Errorf("%v: %+v", err, got)
		}
	}
}

// TestNoAnswer: who drops what comes is not known to be out of reach. A listener whose
// queue is full drops as a filter does.
func TestNoAnswer(t *testing.T) {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l)
	err = unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	if err == nil {
		err = unix.Listen(l, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(l)
	if err != nil {
		t.Fatal(err)
	}
	at, ok := name.(*unix.SockaddrInet4)
	if !ok {
		t.Fatalf("%T", name)
	}
	var last error
	for range 4 { // the queue holds one more than it was asked for
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		_ = unix.Connect(fd, at) // it is under way
		last = poll(fd, unix.POLLOUT)
	}
	if last != unix.ETIMEDOUT { //nolint:errorlint // a bare error number
		t.Fatalf("the queue is not full: %v", last)
	}
	if got := reach(connect(netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port)).String(), "")); got.state != unclear || !strings.Contains(got.reason, "no answer") {
		t.Errorf("%+v", got)
	}
}
