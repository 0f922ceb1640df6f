package bridge

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// By a packet socket with PACKET_VNET_HDR (packet(7)), which takes CAP_NET_RAW, a
// workload names 16 bits of a frame that get a checksum where the frame leaves for a
// device that computes none: a machine's tap, or the host's way out. That is after the
// rules have seen the frame, and after it was translated, and the bits can be half of
// an address. An interface that has checksums computed by nobody behind it computes
// them itself, and the rules see what arrives. It costs a container its large segments,
// so only those have it that can ask for such a thing.

// txChecksum is the feature's name (net/ethtool/common.c): NETIF_F_HW_CSUM.
const txChecksum = "tx-checksum-ip-generic"

// finish has an interface of the calling thread's namespace send frames that nothing
// is missing from.
func finish(link netlink.Link) error {
	f, err := netlink.GenlFamilyGet(unix.ETHTOOL_GENL_NAME)
	if err == nil {
		header := nl.NewRtAttr(unix.ETHTOOL_A_FEATURES_HEADER|unix.NLA_F_NESTED, nil)
		header.AddRtAttr(unix.ETHTOOL_A_HEADER_DEV_INDEX, nl.Uint32Attr(uint32(link.Attrs().Index)))
		header.AddRtAttr(unix.ETHTOOL_A_HEADER_FLAGS, nl.Uint32Attr(unix.ETHTOOL_FLAG_OMIT_REPLY))
		wanted := nl.NewRtAttr(unix.ETHTOOL_A_FEATURES_WANTED|unix.NLA_F_NESTED, nil)
		bit := wanted.AddRtAttr(unix.ETHTOOL_A_BITSET_BITS|unix.NLA_F_NESTED, nil).AddRtAttr(unix.ETHTOOL_A_BITSET_BITS_BIT|unix.NLA_F_NESTED, nil)
		bit.AddRtAttr(unix.ETHTOOL_A_BITSET_BIT_NAME, nl.ZeroTerminated(txChecksum)) // without a value: to be cleared
		req := nl.NewNetlinkRequest(int(f.ID), unix.NLM_F_ACK)
		req.AddData(&nl.Genlmsg{Command: unix.ETHTOOL_MSG_FEATURES_SET, Version: unix.ETHTOOL_GENL_VERSION})
		req.AddData(header)
		req.AddData(wanted)
		_, err = req.Execute(unix.NETLINK_GENERIC, 0)
	}
	if errors.Is(err, os.ErrNotExist) {
		err = unsupported(unix.EOPNOTSUPP, "netlink interface of ethtool (CONFIG_ETHTOOL_NETLINK), by which a workload with CAP_NET_RAW is kept from changing frames after the rules have seen them")
	}
	if err != nil {
		return fmt.Errorf("have it compute checksums: %w", err)
	}
	return nil
}
