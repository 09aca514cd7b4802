package network

import (
	"net/netip"
	"strconv"

	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

const (
	firstTable   = 101
	rulePriority = 5
	usualMetric  = 1   // of the way to everything
	lowMetric    = 500 // of that of an adapter which is not the first
	maxAppear    = 5000
)

// sync moves and sets up the adapters that are not there yet, in their order.
func (n *namespace) sync(k sys.Kernel) error {
	if !n.assigned {
		return nil
	}
	for position, a := range n.adapters {
		if a.link != 0 {
			continue
		}
		if err := a.bring(k, n.pid, position); err != nil {
			return &wire.Error{Code: wire.CodeOf(err), Text: "network adapter " + a.ID, Cause: err}
		}
	}
	return nil
}

// bring puts an adapter into the namespace of a process and sets it up. An adapter is looked for by its address of
// hardware, and named by its number: another that comes later may have got its name from the kernel.
func (a *adapter) bring(k sys.Kernel, pid, position int) error {
	found, err := findLink(k, a.MAC)
	if err != nil {
		return err
	}
	if pid != 0 {
		if found, err = a.move(k, found, pid); err != nil {
			return err
		}
	}
	a.link = found.Index
	net, err := k.OpenNet(pid)
	if err != nil {
		return err
	}
	defer net.Close()
	if a.Overhead > 0 {
		if err := net.SetMTU(found.Index, found.MTU-int(a.Overhead)); err != nil {
			return while("setting its MTU", err)
		}
	}
	if err := net.SetUp(found.Index, true); err != nil {
		return while("switching it on", err)
	}
	for _, address := range a.Addresses {
		if err := net.AddAddress(found.Index, address); err != nil {
			return while("adding the address "+address.String(), err)
		}
	}
	return a.route(net, a.LowMetric || a.ByPolicy && position > 0)
}

func (a *adapter) move(k sys.Kernel, link sys.Link, pid int) (sys.Link, error) {
	from, err := k.OpenNet(0)
	if err != nil {
		return link, err
	}
	defer from.Close()
	if err := from.SetUp(link.Index, false); err != nil {
		return link, while("switching it off", err)
	}
	name := "eth" + strconv.Itoa(a.number)
	if err := from.Move(link.Index, pid, name); err != nil {
		return link, while("moving it to the process "+strconv.Itoa(pid), err)
	}
	to, err := k.OpenNet(pid)
	if err != nil {
		return link, err
	}
	defer to.Close()
	return linkOf(to, a.MAC)
}

// route adds the ways. With low metric that to everything is for what comes from the adapter's own addresses only.
func (a *adapter) route(net sys.Net, low bool) error {
	for _, r := range a.Routes {
		route := sys.Route{Link: a.link, Destination: r.Destination, Gateway: r.Gateway, Metric: int(r.Metric)}
		if r.Destination.Bits() == 0 {
			route.Metric = metricOf(r, low)
			if low {
				route.Table = firstTable + a.number
				if err := a.rule(net, r.Destination.Addr().Is4()); err != nil {
					return err
				}
			}
		}
		if r.Gateway.IsValid() && !a.reaches(r.Gateway) {
			beside := sys.Route{Link: a.link, Destination: netip.PrefixFrom(r.Gateway, r.Gateway.BitLen())}
			if err := net.AddRoute(beside); err != nil {
				return while("adding the way to the gateway "+r.Gateway.String(), err)
			}
		}
		if err := net.AddRoute(route); err != nil {
			return while("adding the way to "+r.Destination.String(), err)
		}
	}
	return nil
}

func metricOf(r wire.AdapterRoute, low bool) int {
	switch {
	case r.Metric != 0:
		return int(r.Metric)
	case low:
		return lowMetric
	}
	return usualMetric
}

// rule sends what comes from the adapter's addresses of a family to its own table.
func (a *adapter) rule(net sys.Net, four bool) error {
	for _, address := range a.Addresses {
		if address.Addr().Is4() != four {
			continue
		}
		from := netip.PrefixFrom(address.Addr(), address.Addr().BitLen())
		rule := sys.Rule{From: from, Table: firstTable + a.number, Priority: rulePriority}
		if err := net.AddRule(rule); err != nil {
			return while("adding the rule for "+from.String(), err)
		}
		a.rules = append(a.rules, rule)
	}
	return nil
}

// reaches says whether an address is in a network of the adapter's, or on any link.
func (a *adapter) reaches(gateway netip.Addr) bool {
	for _, address := range a.Addresses {
		if address.Contains(gateway) {
			return true
		}
	}
	return gateway.IsLinkLocalUnicast()
}

// undo switches an adapter off where it is, and takes its rules away. One that is gone, or whose process is, needs nothing.
func (a *adapter) undo(k sys.Kernel, pid int) error {
	if a.link == 0 {
		return nil
	}
	net, err := k.OpenNet(pid)
	if err != nil {
		a.link, a.rules = 0, nil
		return nil
	}
	defer net.Close()
	for len(a.rules) > 0 {
		if err := net.RemoveRule(a.rules[0]); err != nil {
			return while("removing a rule", err)
		}
		a.rules = a.rules[1:]
	}
	if link, err := linkOf(net, a.MAC); err == nil {
		if err := net.SetUp(link.Index, false); err != nil {
			return while("switching it off", err)
		}
	}
	a.link = 0
	return nil
}

// findLink waits until the agent's namespace has the interface of an adapter.
func findLink(k sys.Kernel, mac string) (link sys.Link, failure error) {
	net, err := k.OpenNet(0)
	if err != nil {
		return link, err
	}
	defer net.Close()
	there, err := sys.Appear(k, k.DeviceEvents, "net", sys.Now()+maxAppear*1e6, func() bool {
		link, failure = linkOf(net, mac)
		return wire.CodeOf(failure) != wire.NotFound
	})
	switch {
	case err != nil:
		return link, while("device events", err)
	case !there:
		return link, &wire.Error{Code: wire.Timeout, Text: "timed out waiting for net adapter with the address " + mac}
	}
	return link, failure
}

// linkOf returns the one interface with an address of hardware.
func linkOf(net sys.Net, mac string) (found sys.Link, err error) {
	links, err := net.Links()
	if err != nil {
		return found, while("network interfaces", err)
	}
	count := 0
	for _, link := range links {
		if link.Address == mac {
			found = link
			count++
		}
	}
	switch count {
	case 1:
		return found, nil
	case 0:
		return found, &wire.Error{Code: wire.NotFound, Text: "no network interface has the address " + mac}
	}
	return found, &wire.Error{Code: wire.Fail, Text: "multiple network interfaces have the address " + mac}
}

func while(what string, err error) error { return &wire.Error{Code: wire.Fail, Text: what, Cause: err} }
