package meter

import (
	"encoding/binary"
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// socket makes a socket of no protocol, which receives nothing.
func socket(domain, kind int, call string) func(*trial) error {
	return func(*trial) error {
		fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
		}
		return at(call, err)
	}
}

// ping asks the loopback interface for an echo.
func ping(kind int) func(*trial) error {
	return func(*trial) error {
		call := map[int]string{unix.SOCK_RAW: "socket(SOCK_RAW, ICMP)", unix.SOCK_DGRAM: "socket(SOCK_DGRAM, ICMP)"}[kind]
		fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		if err != nil {
			return at(call, err)
		}
		defer unix.Close(fd)
		if err := limit(fd); err != nil {
			return at("setsockopt", err)
		}
		const id, sequence = 0x6d65, 1
		loopback := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
		if err := unix.Sendto(fd, echo(id, sequence), 0, loopback); err != nil {
			return err
		}
		// A raw socket sees the request, too, and what others send.
		b := make([]byte, 512)
		for range 1000 {
			n, _, err := unix.Recvfrom(fd, b, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return at("recvfrom", err)
			}
			m := b[:n]
			if kind == unix.SOCK_RAW {
				if n < 20 || n < int(m[0]&15)*4 {
					continue
				}
				m = m[int(m[0]&15)*4:]
			}
			// The kernel chose the ID of a datagram socket.
			if len(m) >= 8 && m[0] == 0 && binary.BigEndian.Uint16(m[6:]) == sequence && (kind == unix.SOCK_DGRAM || binary.BigEndian.Uint16(m[4:]) == id) {
				return nil
			}
		}
		return wrong("recvfrom")
	}
}

// echo is an echo request, RFC 792.
func echo(id, sequence uint16) []byte {
	m := binary.BigEndian.AppendUint16([]byte{8, 0, 0, 0}, id)
	m = binary.BigEndian.AppendUint16(m, sequence)
	sum := uint32(0)
	for i := 0; i < len(m); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(m[i:]))
	}
	binary.BigEndian.PutUint16(m[2:], ^uint16(sum+sum>>16))
	return m
}

func tryRoutes(*trial) error {
	b, err := syscall.NetlinkRIB(unix.RTM_GETLINK, unix.AF_UNSPEC)
	if err != nil {
		return err
	}
	if messages, err := syscall.ParseNetlinkMessage(b); err != nil || len(messages) == 0 {
		return wrong("sendto(RTM_GETLINK)")
	}
	return nil
}

// tryNftables asks which tables there are.
func tryNftables(*trial) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return at("socket(NETLINK_NETFILTER)", err)
	}
	defer unix.Close(fd)
	if err := limit(fd); err != nil {
		return at("setsockopt", err)
	}
	// struct nlmsghdr, then struct nfgenmsg of no family in particular.
	m := binary.NativeEndian.AppendUint32(nil, unix.NLMSG_HDRLEN+4)
	m = binary.NativeEndian.AppendUint16(m, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETTABLE)
	m = binary.NativeEndian.AppendUint16(m, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	m = binary.NativeEndian.AppendUint64(m, 1)
	m = append(m, unix.AF_UNSPEC, 0, 0, 0)
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	b := make([]byte, 64<<10)
	n, _, err := unix.Recvfrom(fd, b, 0)
	if err != nil {
		return at("recvfrom", err)
	}
	messages, err := syscall.ParseNetlinkMessage(b[:n])
	if err != nil || len(messages) == 0 {
		return wrong("sendto(NFT_MSG_GETTABLE)")
	}
	if first := messages[0]; first.Header.Type == unix.NLMSG_ERROR && len(first.Data) >= 4 {
		return errno(syscall.Errno(-int32(binary.NativeEndian.Uint32(first.Data))))
	}
	return nil
}

func tryAlg(*trial) error {
	fd, err := unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return at("socket(AF_ALG)", err)
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrALG{Type: "hash", Name: "sha256"})
}
