package bridge

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
)

func TestDump(t *testing.T) {
	broken := errors.New("broken")
	interrupted := fmt.Errorf("list: %w", netlink.ErrDumpInterrupted)
	for _, c := range []struct {
		name    string
		answers []error // the last one for ever
		whole   bool
		err     error
		asked   int
	}{
		{"at once", []error{nil}, true, nil, 1},
		{"the third time", []error{interrupted, interrupted, nil}, true, nil, 3},
		{"never", []error{interrupted}, false, nil, dumpTries},
		{"an error", []error{interrupted, broken}, false, broken, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := 0
			all, whole, err := dump(func() ([]int, error) {
				answer := c.answers[min(asked, len(c.answers)-1)]
				asked++
				return []int{asked}, answer
			})
			if whole != c.whole || !errors.Is(err, c.err) || asked != c.asked {
				t.Errorf("whole %v, error %v, asked %d times", whole, err, asked)
			}
			if err == nil && !slices.Equal(all, []int{c.asked}) {
				t.Errorf("the list is %v", all)
			}
		})
	}
}

// A bridge can be made while somebody else's interface gets and loses an address all
// the time: its addresses are asked for again.
func TestBridgeWhileAddressesChange(t *testing.T) {
	l := newLab(t)
	n := l.create(network.Network{Name: "one"})
	other := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "other"}}
	if err := netlink.LinkAdd(other); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { deleteLink("other") })
	for i := range 250 { // more than one answer holds
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 32)
		if err := netlink.AddrAdd(other, &netlink.Addr{IPNet: ipNet(p)}); err != nil {
			t.Fatal(err)
		}
	}
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		a := &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("192.0.2.255/32"))}
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := errors.Join(netlink.AddrAdd(other, a), netlink.AddrDel(other, a)); err != nil {
				<-stop
				stopped <- err
				return
			}
		}
	}()
	for range 100 {
		if _, err := makeBridge(n, 1); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
