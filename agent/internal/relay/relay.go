// Package relay connects programs that know only AF_VSOCK to the host. Without another transport Linux routes their dials
// to CID 2 back into this machine, where a socket listens for each port that the host has opened to them
// (protocol/SPEC.md section 4).
package relay

import (
	"utilityvm/agent/internal/hvsocket"
	"utilityvm/agent/internal/loop"
	"utilityvm/agent/internal/sys"
)

// Relay holds the listening sockets. A port without one refuses the program as one of the host would, by a reset.
type Relay struct {
	loop      *loop.Loop
	kernel    sys.Kernel
	socket    *hvsocket.Socket
	failed    func(port uint32, why error)
	ready     bool // AF_VSOCK is there
	listeners map[uint32]*listener
}

type listener struct {
	relay *Relay
	fd    int
	port  uint32
	once  bool
	held  int         // a dial that may have been given up, -1 for none
	timer *loop.Timer // when it is taken for one that was not
}

// retryWithin is how long, in milliseconds, a program has for dialling again after a signal has interrupted its dial. What the
// interrupted one leaves cannot be told from a program that has ended without a word.
const retryWithin = 20

// New returns a relay to the host behind socket. It costs nothing before the first Open. failed hears of ports that programs
// cannot dial.
func New(l *loop.Loop, kernel sys.Kernel, socket *hvsocket.Socket, failed func(port uint32, why error)) *Relay {
	return &Relay{loop: l, kernel: kernel, socket: socket, failed: failed, listeners: make(map[uint32]*listener)}
}

// Open lets programs dial port, with once until one has. When that cannot be they are refused.
func (r *Relay) Open(port uint32, once bool) {
	r.Close(port)
	if !r.ready {
		if err := sys.LoadModules(r.kernel, "vsock"); err != nil {
			r.failed(port, err)
			return
		}
		r.ready = true
	}
	fd, err := r.kernel.ListenVsock(port)
	if err != nil {
		r.failed(port, err)
		return
	}
	l := &listener{relay: r, fd: fd, port: port, once: once, held: -1}
	r.listeners[port] = l
	if err := r.loop.Watch(fd, sys.In, l); err != nil {
		r.failed(port, err)
		r.Close(port)
	}
}

// Close refuses further dials to port. Connections that were made stay.
func (r *Relay) Close(port uint32) {
	if l := r.listeners[port]; l != nil {
		delete(r.listeners, port)
		l.drop()
		r.loop.Close(l.fd)
	}
}

// Reset closes every port: the host has begun anew.
func (r *Relay) Reset() {
	for port := range r.listeners {
		r.Close(port)
	}
}

// Ready implements loop.Source: programs have dialled.
func (l *listener) Ready(uint32) {
	for l.relay.listeners[l.port] == l {
		fd, errno := sys.Accept(l.fd)
		if errno != 0 {
			if errno != sys.Again {
				l.relay.failed(l.port, errno)
			}
			return
		}
		if l.once && sys.Gone(fd) {
			l.drop()
			l.held = fd
			l.timer = l.relay.loop.After(retryWithin, l.takeHeld)
			continue
		}
		l.take(fd)
	}
}

// take connects a dial to the host.
func (l *listener) take(fd int) {
	if l.once {
		l.relay.Close(l.port)
	}
	Join(l.relay.loop, l.relay.socket, fd, l.port)
}

func (l *listener) takeHeld() {
	fd := l.held
	l.held = -1
	l.take(fd)
}

// drop forgets a dial that is held.
func (l *listener) drop() {
	if l.held >= 0 {
		l.relay.loop.Cancel(l.timer)
		sys.Close(l.held)
		l.held = -1
	}
}
