package sys

import "net/netip"

// Link is a network interface.
type Link struct {
	Index   int
	Name    string
	Address string // of hardware, as "02:00:00:00:00:01"
	MTU     int
}

// Route is a way to Destination: through Gateway, or straight to the link when that is not valid.
type Route struct {
	Link        int
	Destination netip.Prefix
	Gateway     netip.Addr
	Metric      int
	Table       int // 0: the main one
}

// Rule lets what comes from an address look for its way in a table.
type Rule struct {
	From     netip.Prefix
	Table    int
	Priority int
}

// Net is the network of one namespace. What is there already may be added again; what is not there may be removed.
type Net interface {
	// Links returns all interfaces.
	Links() ([]Link, error)
	// Move puts an interface that is down into the namespace of a process and calls it name there.
	Move(link, pid int, name string) error
	// SetUp switches an interface on or off.
	SetUp(link int, up bool) error
	// SetMTU sets the longest packet of an interface, in bytes.
	SetMTU(link, bytes int) error
	// AddAddress gives an interface an address of its network.
	AddAddress(link int, address netip.Prefix) error
	// AddRoute adds a way.
	AddRoute(r Route) error
	// AddRule adds a rule.
	AddRule(r Rule) error
	// RemoveRule removes one.
	RemoveRule(r Rule) error
	// Close ends the use of it.
	Close()
}
