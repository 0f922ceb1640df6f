package probe

import (
	"os"
	"strconv"
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
