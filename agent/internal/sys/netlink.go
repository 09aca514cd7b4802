package sys

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"strconv"
	"syscall"
)

// Numbers of rtnetlink (linux/rtnetlink.h, linux/if_link.h, linux/fib_rules.h) that the standard library has not.
const (
	iflaNetNSPid   = 19
	ifaFlags       = 8
	ifaNoDAD       = 0x02
	fraSource      = 2
	fraPriority    = 6
	fraTable       = 15
	ruleToTable    = 1
	protocolStatic = 4
	smallTables    = 256 // tables with a number below stand in the header too
	cloneNewNet    = 0x40000000
	netlinkWait    = 5 // seconds for an answer, which the kernel gives at once
	maxAnswer      = 64 * 1024
)

// endian is the host's, which netlink speaks; all machines of ours are little.
var endian = binary.LittleEndian

// netSocket is a Net: a netlink socket that was opened in its namespace, where it stays.
type netSocket struct{ fd int }

// OpenNet implements Kernel.
func (Linux) OpenNet(pid int) (Net, error) {
	if pid == 0 {
		return openNetSocket()
	}
	var (
		opened Net
		failed error
		done   = make(chan struct{})
	)
	// The thread that has been in another namespace is never used again: nothing else may run there by mistake.
	go func() {
		defer close(done)
		runtime.LockOSThread()
		fd, err := syscall.Open("/proc/"+strconv.Itoa(pid)+"/ns/net", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			failed = err
			return
		}
		defer Close(fd)
		if _, _, errno := syscall.RawSyscall(sysSetns, uintptr(fd), cloneNewNet, 0); errno != 0 {
			failed = errno
			return
		}
		opened, failed = openNetSocket()
	}()
	<-done
	return opened, failed
}

func openNetSocket() (Net, error) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	limit := syscall.Timeval{Sec: netlinkWait}
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &limit); err != nil {
		Close(fd)
		return nil, err
	}
	return &netSocket{fd}, nil
}

// Close implements Net.
func (n *netSocket) Close() { Close(n.fd) }

// Links implements Net.
func (n *netSocket) Links() ([]Link, error) {
	var links []Link
	m := newNetlink(syscall.RTM_GETLINK, syscall.NLM_F_DUMP, make([]byte, syscall.SizeofIfInfomsg))
	err := n.ask(m, func(body []byte) {
		if len(body) < syscall.SizeofIfInfomsg {
			return
		}
		links = append(links, parseLink(body))
	})
	return links, err
}

func parseLink(body []byte) Link {
	l := Link{Index: int(endian.Uint32(body[4:]))}
	eachAttribute(body[syscall.SizeofIfInfomsg:], func(kind uint16, value []byte) {
		switch {
		case kind == syscall.IFLA_IFNAME:
			l.Name = string(trimZero(value))
		case kind == syscall.IFLA_ADDRESS:
			l.Address = hardwareAddress(value)
		case kind == syscall.IFLA_MTU && len(value) == 4:
			l.MTU = int(endian.Uint32(value))
		}
	})
	return l
}

// Move implements Net.
func (n *netSocket) Move(link, pid int, name string) error {
	m := linkMessage(link, 0, 0)
	m.number(iflaNetNSPid, pid)
	m.attribute(syscall.IFLA_IFNAME, append([]byte(name), 0))
	return n.ask(m, nil)
}

// SetUp implements Net.
func (n *netSocket) SetUp(link int, up bool) error {
	flags := uint32(0)
	if up {
		flags = syscall.IFF_UP
	}
	return n.ask(linkMessage(link, flags, syscall.IFF_UP), nil)
}

// SetMTU implements Net.
func (n *netSocket) SetMTU(link, bytes int) error {
	m := linkMessage(link, 0, 0)
	m.number(syscall.IFLA_MTU, bytes)
	return n.ask(m, nil)
}

func linkMessage(link int, flags, change uint32) *netlink {
	head := make([]byte, syscall.SizeofIfInfomsg)
	endian.PutUint32(head[4:], uint32(link))
	endian.PutUint32(head[8:], flags)
	endian.PutUint32(head[12:], change)
	return newNetlink(syscall.RTM_NEWLINK, syscall.NLM_F_ACK, head)
}

// AddAddress implements Net. The address is used at once: nobody else in its network can have it.
func (n *netSocket) AddAddress(link int, address netip.Prefix) error {
	head := make([]byte, syscall.SizeofIfAddrmsg)
	head[0], head[1] = family(address.Addr()), byte(address.Bits())
	endian.PutUint32(head[4:], uint32(link))
	m := newNetlink(syscall.RTM_NEWADDR, syscall.NLM_F_ACK|syscall.NLM_F_CREATE|syscall.NLM_F_EXCL, head)
	m.attribute(syscall.IFA_LOCAL, address.Addr().AsSlice())
	m.attribute(syscall.IFA_ADDRESS, address.Addr().AsSlice())
	if address.Addr().Is6() {
		m.number(ifaFlags, ifaNoDAD)
	}
	return unlessExists(n.ask(m, nil))
}

// AddRoute implements Net.
func (n *netSocket) AddRoute(r Route) error {
	table := r.Table
	if table == 0 {
		table = syscall.RT_TABLE_MAIN
	}
	scope := byte(syscall.RT_SCOPE_UNIVERSE)
	if !r.Gateway.IsValid() {
		scope = syscall.RT_SCOPE_LINK
	}
	head := routeHead(r.Destination, 0, table)
	head[5], head[6], head[7] = protocolStatic, scope, syscall.RTN_UNICAST
	m := newNetlink(syscall.RTM_NEWROUTE, syscall.NLM_F_ACK|syscall.NLM_F_CREATE|syscall.NLM_F_EXCL, head)
	if r.Destination.Bits() > 0 {
		m.attribute(syscall.RTA_DST, r.Destination.Masked().Addr().AsSlice())
	}
	if r.Gateway.IsValid() {
		m.attribute(syscall.RTA_GATEWAY, r.Gateway.AsSlice())
	}
	m.number(syscall.RTA_OIF, r.Link)
	m.number(syscall.RTA_TABLE, table)
	if r.Metric != 0 {
		m.number(syscall.RTA_PRIORITY, r.Metric)
	}
	return unlessExists(n.ask(m, nil))
}

// AddRule implements Net.
func (n *netSocket) AddRule(r Rule) error {
	return unlessExists(n.rule(syscall.RTM_NEWRULE, syscall.NLM_F_CREATE|syscall.NLM_F_EXCL, r))
}

// RemoveRule implements Net.
func (n *netSocket) RemoveRule(r Rule) error {
	if err := n.rule(syscall.RTM_DELRULE, 0, r); err != syscall.ENOENT {
		return err
	}
	return nil
}

func (n *netSocket) rule(kind, flags uint16, r Rule) error {
	head := routeHead(netip.PrefixFrom(r.From.Addr(), 0), r.From.Bits(), r.Table)
	head[7] = ruleToTable
	m := newNetlink(kind, syscall.NLM_F_ACK|flags, head)
	m.attribute(fraSource, r.From.Addr().AsSlice())
	m.number(fraPriority, r.Priority)
	m.number(fraTable, r.Table)
	return n.ask(m, nil)
}

// routeHead is the header that routes and rules have in common.
func routeHead(to netip.Prefix, fromBits, table int) []byte {
	head := make([]byte, syscall.SizeofRtMsg)
	head[0], head[1], head[2] = family(to.Addr()), byte(to.Bits()), byte(fromBits)
	if table < smallTables {
		head[4] = byte(table)
	}
	return head
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return syscall.AF_INET
	}
	return syscall.AF_INET6
}

// netlink is a message that is being written.
type netlink struct{ bytes []byte }

func newNetlink(kind, flags uint16, head []byte) *netlink {
	b := make([]byte, syscall.NLMSG_HDRLEN, 128)
	endian.PutUint16(b[4:], kind)
	endian.PutUint16(b[6:], flags|syscall.NLM_F_REQUEST)
	return &netlink{append(b, head...)}
}

func (m *netlink) attribute(kind uint16, value []byte) {
	var head [syscall.SizeofRtAttr]byte
	endian.PutUint16(head[0:], uint16(len(head)+len(value)))
	endian.PutUint16(head[2:], kind)
	m.bytes = append(append(m.bytes, head[:]...), value...)
	for len(m.bytes)%syscall.RTA_ALIGNTO != 0 {
		m.bytes = append(m.bytes, 0)
	}
}

func (m *netlink) number(kind uint16, n int) {
	m.attribute(kind, endian.AppendUint32(nil, uint32(n)))
}

// ask sends a message and hands out the bodies of its answers, up to the acknowledgement or the end of the list.
func (n *netSocket) ask(m *netlink, each func(body []byte)) error {
	endian.PutUint32(m.bytes, uint32(len(m.bytes)))
	if err := syscall.Sendto(n.fd, m.bytes, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return err
	}
	for answer := make([]byte, maxAnswer); ; {
		got, _, err := syscall.Recvfrom(n.fd, answer, 0)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if done, err := answers(answer[:got], each); done || err != nil {
			return err
		}
	}
}

// answers reads the messages of one datagram; done says that there are no more.
func answers(b []byte, each func(body []byte)) (done bool, err error) {
	for len(b) >= syscall.NLMSG_HDRLEN {
		size, kind := int(endian.Uint32(b)), endian.Uint16(b[4:])
		if size < syscall.NLMSG_HDRLEN || size > len(b) {
			return true, syscall.EBADMSG
		}
		body := b[syscall.NLMSG_HDRLEN:size]
		switch {
		case kind == syscall.NLMSG_DONE:
			return true, nil
		case kind == syscall.NLMSG_ERROR && len(body) < 4:
			return true, syscall.EBADMSG
		case kind == syscall.NLMSG_ERROR:
			if code := int32(endian.Uint32(body)); code != 0 {
				return true, syscall.Errno(-code)
			}
			return true, nil
		case each != nil:
			each(body)
		}
		b = b[min(aligned(size), len(b)):]
	}
	return false, nil
}

func eachAttribute(b []byte, each func(kind uint16, value []byte)) {
	for len(b) >= syscall.SizeofRtAttr {
		size := int(endian.Uint16(b))
		if size < syscall.SizeofRtAttr || size > len(b) {
			return
		}
		each(endian.Uint16(b[2:]), b[syscall.SizeofRtAttr:size])
		b = b[min(aligned(size), len(b)):]
	}
}

func aligned(n int) int { return (n + syscall.NLMSG_ALIGNTO - 1) &^ (syscall.NLMSG_ALIGNTO - 1) }

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}

func trimZero(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return b
}

// hardwareAddress writes an address as the kernel does in sysfs.
func hardwareAddress(b []byte) string {
	const digits = "0123456789abcdef"
	out := make([]byte, 0, 3*len(b))
	for i, c := range b {
		if i > 0 {
			out = append(out, ':')
		}
		out = append(out, digits[c>>4], digits[c&15])
	}
	return string(out)
}
