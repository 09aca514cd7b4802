package wire

import (
	"net/netip"
	"strings"
)

// Adapter are the settings of Network: a network adapter, and how it is set up. Addresses come as one of IPv4, by the
// older members, or as lists with the ways beside them, by the newer; both become the same here.
type Adapter struct {
	Namespace string // in lower case
	ID        string
	MAC       string // as "02:00:00:00:00:01"
	Addresses []netip.Prefix
	Routes    []AdapterRoute
	Suffixes  []string
	Servers   []string
	LowMetric bool // ways of its own for what comes from its addresses, and none for the rest
	ByPolicy  bool // that is wanted for every adapter after the first
	Overhead  uint32
}

// AdapterRoute is a way: without a valid Gateway straight to the link.
type AdapterRoute struct {
	Destination netip.Prefix
	Gateway     netip.Addr
	Metric      uint32
}

// adapterText is what stands in the settings.
type adapterText struct {
	address, gateway, suffix, servers string
	prefix                            uint32
	assigned                          bool
	configs                           []ipConfig
	routes                            []routeText
	newer                             bool
}

type ipConfig struct {
	address string
	prefix  uint32
}

type routeText struct {
	hop, destination string
	metric           uint32
}

// maxInList bounds the addresses and ways of one adapter.
const maxInList = 64

// ParseAdapter reads the settings of a network adapter.
func ParseAdapter(settings string) (a Adapter, err error) {
	var t adapterText
	r := newJSONReader(orNothing(settings))
	r.object(func(key string) {
		switch key {
		case "NamespaceID":
			a.Namespace = strings.ToLower(r.str())
		case "ID":
			a.ID = r.str()
		case "MacAddress":
			a.MAC = strings.ToLower(strings.ReplaceAll(r.str(), "-", ":"))
		case "EnableLowMetric":
			a.LowMetric = r.boolean()
		case "PolicyBasedRouting":
			a.ByPolicy = r.boolean()
		case "EncapOverhead":
			a.Overhead = r.uint32()
		default:
			t.member(r, key)
		}
	})
	if err = r.end(); err != nil {
		return a, err
	}
	a.ByPolicy = a.ByPolicy || !t.newer
	if t.assigned {
		return a, &Error{Code: NotImpl, Text: "VPCIAssigned: assigned network devices are not supported"}
	}
	if a.Namespace == "" || a.ID == "" {
		return a, &Error{Code: InvalidArg, Text: "NamespaceID or ID is missing"}
	}
	return a, a.take(&t)
}

func (t *adapterText) member(r *jsonReader, key string) {
	switch key {
	case "IPAddress":
		t.address = r.str()
	case "PrefixLength":
		t.prefix = r.uint32()
	case "GatewayAddress":
		t.gateway = r.str()
	case "DNSSuffix":
		t.suffix = r.str()
	case "DNSServerList":
		t.servers = r.str()
	case "VPCIAssigned":
		t.assigned = r.boolean()
	case "IPConfigs":
		t.newer = true
		r.list('[', ']', func() { t.configs = append(t.configs, readConfig(r)) })
	case "Routes":
		t.newer = true
		r.list('[', ']', func() { t.routes = append(t.routes, readRoute(r)) })
	default:
		r.skip()
	}
}

func readConfig(r *jsonReader) (c ipConfig) {
	r.object(func(key string) {
		switch key {
		case "IPAddress":
			c.address = r.str()
		case "PrefixLength":
			c.prefix = r.uint32()
		default:
			r.skip()
		}
	})
	return c
}

func readRoute(r *jsonReader) (t routeText) {
	r.object(func(key string) {
		switch key {
		case "NextHop":
			t.hop = r.str()
		case "DestinationPrefix":
			t.destination = r.str()
		case "Metric":
			t.metric = r.uint32()
		default:
			r.skip()
		}
	})
	return t
}

// take understands addresses and ways.
func (a *Adapter) take(t *adapterText) error {
	if len(t.configs) > maxInList || len(t.routes) > maxInList {
		return &Error{Code: InvalidArg, Text: "more addresses or ways than an adapter can have"}
	}
	if t.address != "" {
		t.configs = append([]ipConfig{{t.address, t.prefix}}, t.configs...)
	}
	if t.gateway != "" {
		t.routes = append([]routeText{{hop: t.gateway}}, t.routes...)
	}
	for _, c := range t.configs {
		address, err := netip.ParseAddr(c.address)
		if err != nil || address.Zone() != "" || c.prefix == 0 || int64(c.prefix) > int64(address.BitLen()) {
			return &Error{Code: InvalidArg, Text: "no address of a network: '" + c.address + "' with its PrefixLength"}
		}
		a.Addresses = append(a.Addresses, netip.PrefixFrom(address, int(c.prefix)))
	}
	for _, text := range t.routes {
		route, wanted, err := text.route()
		if err != nil {
			return err
		}
		if wanted {
			a.Routes = append(a.Routes, route)
		}
	}
	a.Suffixes, a.Servers = words(t.suffix), words(t.servers)
	for _, server := range a.Servers {
		if _, err := netip.ParseAddr(server); err != nil {
			return &Error{Code: InvalidArg, Text: "DNSServerList has what is no address: '" + server + "'"}
		}
	}
	for _, suffix := range a.Suffixes {
		if strings.ContainsAny(suffix, "\n\r\x00") {
			return &Error{Code: InvalidArg, Text: "DNSSuffix has a line break"}
		}
	}
	return nil
}

// route understands a way; one to everything through no address is none.
func (t *routeText) route() (r AdapterRoute, wanted bool, err error) {
	r.Metric = t.metric
	hop, bad := netip.ParseAddr(t.hop)
	if t.hop != "" && bad != nil {
		return r, false, &Error{Code: InvalidArg, Text: "no address of a gateway: '" + t.hop + "'"}
	}
	if t.destination == "" && !hop.IsValid() {
		return r, false, nil
	}
	switch {
	case t.destination != "":
		if r.Destination, err = netip.ParsePrefix(t.destination); err != nil {
			return r, false, &Error{Code: InvalidArg, Text: "no network: '" + t.destination + "'"}
		}
	case hop.Is4():
		r.Destination = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	default:
		r.Destination = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if hop.IsValid() && !hop.IsUnspecified() {
		if hop.Is4() != r.Destination.Addr().Is4() {
			return r, false, &Error{Code: InvalidArg, Text: "a gateway of the other family: '" + t.hop + "'"}
		}
		r.Gateway = hop
	}
	return r, r.Gateway.IsValid() || r.Destination.Bits() > 0, nil
}

// words splits a list that commas or blanks separate.
func words(text string) []string {
	return strings.FieldsFunc(text, func(c rune) bool { return c == ',' || c == ' ' || c == '\t' })
}
