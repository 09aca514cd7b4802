package systest

import (
	"fmt"
	"net/netip"
	"syscall"

	"utilityvm/agent/internal/sys"
)

// OpenNet implements sys.Kernel. What is done by the result is recorded with the process whose namespace it is.
func (k *Kernel) OpenNet(pid int) (sys.Net, error) {
	if err := k.Fail[fmt.Sprint("net ", pid)]; err != nil {
		return nil, err
	}
	return &network{k, pid}, nil
}

type network struct {
	k   *Kernel
	pid int
}

func (n *network) call(format string, words ...any) error {
	return n.k.call(fmt.Sprintf("net %d: ", n.pid) + fmt.Sprintf(format, words...))
}

func (n *network) Links() ([]sys.Link, error) {
	return append([]sys.Link(nil), n.k.Links[n.pid]...), n.k.Fail[fmt.Sprintf("net %d: links", n.pid)]
}

// Move gives the interface another index in its new namespace, as the kernel does when the index is taken there.
func (n *network) Move(link, pid int, name string) error {
	if err := n.call("move %d to %d as %s", link, pid, name); err != nil {
		return err
	}
	for i, l := range n.k.Links[n.pid] {
		if l.Index == link {
			n.k.Links[n.pid] = append(n.k.Links[n.pid][:i:i], n.k.Links[n.pid][i+1:]...)
			l.Name, l.Index = name, l.Index+100
			n.k.Links[pid] = append(n.k.Links[pid], l)
			return nil
		}
	}
	return syscall.ENODEV
}

func (n *network) SetUp(link int, up bool) error {
	if up {
		return n.call("up %d", link)
	}
	return n.call("down %d", link)
}

func (n *network) SetMTU(link, bytes int) error { return n.call("mtu %d %d", link, bytes) }

func (n *network) AddAddress(link int, address netip.Prefix) error {
	return n.call("address %d %s", link, address)
}

func (n *network) AddRoute(r sys.Route) error {
	via := "link"
	if r.Gateway.IsValid() {
		via = r.Gateway.String()
	}
	return n.call("route %d %s via %s metric %d table %d", r.Link, r.Destination, via, r.Metric, r.Table)
}

func (n *network) AddRule(r sys.Rule) error {
	return n.call("rule from %s table %d priority %d", r.From, r.Table, r.Priority)
}

func (n *network) RemoveRule(r sys.Rule) error {
	return n.call("no rule from %s table %d", r.From, r.Table)
}

func (n *network) Close() {}
