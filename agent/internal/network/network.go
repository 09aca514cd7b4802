// Package network has the guest's network namespaces: the adapters of each, and the process in whose namespace of the
// kernel they are to be.
//
// An adapter is moved into its namespace once, and remembered there by its index. A namespace whose process is not yet
// known keeps its adapters in the agent's own until Assign tells it.
package network

import (
	"strconv"
	"strings"
	"sync"

	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// Own is the namespace of the utility VM itself: the agent's, which is there from the start.
const Own = wire.NullGUID

// Table has all namespaces of a machine, by the host's ids in lower case.
type Table struct {
	lock       sync.Mutex
	namespaces map[string]*namespace
}

// namespace has its adapters in the order in which they were added. Its own lock is held while the kernel is asked.
type namespace struct {
	lock     sync.Mutex
	adapters []*adapter
	assigned bool // whether pid is known
	pid      int  // 0 is the agent
	next     int  // number of the next adapter: names and tables are never used again
}

type adapter struct {
	wire.Adapter
	number int
	link   int // index in the namespace of the process, 0 before it is there
	rules  []sys.Rule
}

// Add takes an adapter into its namespace, which is made with its first, waits until the kernel has its interface, and
// sets it up if the namespace has its process.
func (t *Table) Add(k sys.Kernel, settings *wire.Adapter) error {
	if settings.MAC == "" {
		return &wire.Error{Code: wire.InvalidArg, Text: "MacAddress is missing: adapters are found by it"}
	}
	if len(settings.Addresses) == 0 {
		return &wire.Error{Code: wire.NotImpl, Text: "adapter " + settings.ID + " has no address, and DHCP is not supported"}
	}
	n, a, err := t.reserve(settings)
	if err != nil {
		return err
	}
	if err = sys.LoadModules(k, "net"); err == nil {
		_, err = findLink(k, settings.MAC)
	}
	if err == nil {
		n.lock.Lock()
		err = n.sync(k)
		n.lock.Unlock()
	}
	if err != nil {
		n.lock.Lock()
		_ = a.undo(k, n.pid) // why it failed says more
		n.lock.Unlock()
		t.forget(settings.Namespace, settings.ID)
		return err
	}
	return t.resolver(k, settings.Namespace)
}

// Remove switches an adapter off and forgets it, and its namespace with the last one. What is not there is gone already.
func (t *Table) Remove(k sys.Kernel, settings *wire.Adapter) error {
	n := t.find(settings.Namespace)
	if n == nil {
		return nil
	}
	n.lock.Lock()
	var err error
	for _, a := range n.adapters {
		if a.ID == settings.ID {
			err = a.undo(k, n.pid)
		}
	}
	n.lock.Unlock()
	if err != nil {
		return err
	}
	t.forget(settings.Namespace, settings.ID)
	return t.resolver(k, settings.Namespace)
}

// Assign says that the adapters of a namespace belong into that of the process pid, and puts those that there are into
// it. A namespace without adapters, or one that the host never named, has none to put.
func (t *Table) Assign(k sys.Kernel, id string, pid int) error {
	n := t.make(strings.ToLower(id))
	n.lock.Lock()
	defer n.lock.Unlock()
	if n.assigned && n.pid != pid {
		return &wire.Error{Code: wire.Fail, Text: "the network namespace " + id + " belongs to the process " + strconv.Itoa(n.pid)}
	}
	n.assigned, n.pid = true, pid
	err := n.sync(k)
	if err != nil {
		n.release(k)
	}
	return err
}

// Release says that the process of a namespace has ended: the kernel takes its adapters back into the agent's own, and
// another process may get them. One that has never had the namespace, or has it no more, changes nothing.
func (t *Table) Release(k sys.Kernel, id string, pid int) {
	id = strings.ToLower(id)
	n := t.find(id)
	if n == nil || id == Own {
		return
	}
	n.lock.Lock()
	if n.assigned && n.pid == pid {
		n.release(k)
	}
	n.lock.Unlock()
	t.forget(id, "")
}

// Known reports whether there is such a namespace: it is made with its first adapter.
func (t *Table) Known(id string) bool { return t.find(strings.ToLower(id)) != nil }

func (n *namespace) release(k sys.Kernel) {
	for _, a := range n.adapters {
		_ = a.undo(k, n.pid) // what cannot be undone goes with the process
	}
	n.assigned, n.pid = false, 0
}

// Resolver returns the text of a resolv.conf for programs in a namespace, "" when its adapters name no server.
func (t *Table) Resolver(id string) string {
	n := t.find(strings.ToLower(id))
	if n == nil {
		return ""
	}
	n.lock.Lock()
	defer n.lock.Unlock()
	return n.resolver()
}

// reserve takes note of an adapter, so that there is no other of its id.
func (t *Table) reserve(settings *wire.Adapter) (*namespace, *adapter, error) {
	n := t.make(settings.Namespace)
	n.lock.Lock()
	defer n.lock.Unlock()
	for _, a := range n.adapters {
		if a.ID == settings.ID {
			text := "adapter with id: '" + settings.ID + "' already present in namespace"
			return nil, nil, &wire.Error{Code: wire.Fail, Text: text}
		}
	}
	a := &adapter{Adapter: *settings, number: n.next}
	n.next++
	n.adapters = append(n.adapters, a)
	return n, a, nil
}

func (t *Table) find(id string) *namespace {
	t.lock.Lock()
	defer t.lock.Unlock()
	return t.namespaces[id]
}

func (t *Table) make(id string) *namespace {
	t.lock.Lock()
	defer t.lock.Unlock()
	n := t.namespaces[id]
	if n == nil {
		n = &namespace{}
		n.assigned = id == Own
		if t.namespaces == nil {
			t.namespaces = make(map[string]*namespace)
		}
		t.namespaces[id] = n
	}
	return n
}

// forget drops an adapter, and a namespace that has neither adapters nor a process.
func (t *Table) forget(id, adapterID string) {
	t.lock.Lock()
	defer t.lock.Unlock()
	n := t.namespaces[id]
	if n == nil {
		return
	}
	n.lock.Lock()
	defer n.lock.Unlock()
	for i, a := range n.adapters {
		if a.ID == adapterID {
			n.adapters = append(n.adapters[:i:i], n.adapters[i+1:]...)
			break
		}
	}
	if len(n.adapters) == 0 && (!n.assigned || id == Own) {
		delete(t.namespaces, id)
	}
}

// resolver writes the servers of the VM's own namespace where its programs look for them.
func (t *Table) resolver(k sys.Kernel, id string) error {
	if id != Own {
		return nil
	}
	if err := k.ReplaceFile("/etc/resolv.conf", t.Resolver(Own)); err != nil {
		return &wire.Error{Code: wire.Fail, Text: "/etc/resolv.conf", Cause: err}
	}
	return nil
}

// resolver returns the text of a resolv.conf. A resolver reads three servers and six suffixes of it.
func (n *namespace) resolver() string {
	var servers, suffixes []string
	for _, a := range n.adapters {
		servers, suffixes = merge(servers, a.Servers), merge(suffixes, a.Suffixes)
	}
	text := ""
	if len(suffixes) > 0 {
		text = "search " + strings.Join(suffixes, " ") + "\n"
	}
	for _, server := range servers {
		text += "nameserver " + server + "\n"
	}
	return text
}

func merge(all, more []string) []string {
	for _, one := range more {
		known := false
		for _, other := range all {
			known = known || one == other
		}
		if !known {
			all = append(all, one)
		}
	}
	return all
}
