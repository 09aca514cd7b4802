package share

import (
	"utilityvm/agent/internal/hvsocket"
	"utilityvm/agent/internal/loop"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// relay carries bytes between a stream of the host and a socket, its own, each way no faster than they are taken.
type relay struct {
	loop   *loop.Loop
	stream *hvsocket.Stream
	fd     int // -1 once it is closed
}

// start dials port and relays what comes from fd and for it; both end together, also when the host refuses.
func start(l *loop.Loop, socket *hvsocket.Socket, port uint32, fd int) {
	r := &relay{loop: l, fd: fd}
	r.stream = socket.Dial(port, r)
	if err := l.Watch(fd, sys.In|sys.Out, r); err != nil {
		r.close()
	}
}

// Ready implements loop.Source.
func (r *relay) Ready(uint32) {
	r.stream.Resume()
	r.stream.Ready()
}

// Opened implements hvsocket.User.
func (r *relay) Opened() {}

// Receive implements hvsocket.User.
func (r *relay) Receive(p []byte) int {
	if r.fd < 0 {
		return len(p)
	}
	n, errno := sys.Write(r.fd, p)
	if errno != 0 && errno != sys.Again {
		r.close()
		return len(p)
	}
	return n
}

// Fill implements hvsocket.User.
func (r *relay) Fill(p []byte) (int, bool) {
	if r.fd < 0 {
		return 0, false
	}
	n, errno := sys.Read(r.fd, p)
	if n == 0 && errno != sys.Again {
		r.close()
	}
	return n, n > 0
}

// Shut implements hvsocket.User: neither half is of use alone.
func (r *relay) Shut(_, _ bool) { r.close() }

// Closed implements hvsocket.User.
func (r *relay) Closed() { r.close() }

// close gives both ends up.
func (r *relay) close() {
	if r.fd < 0 {
		return
	}
	r.loop.Close(r.fd)
	r.fd = -1
	r.stream.Shutdown(wire.ShutBoth)
	r.stream.Resume() // drops what was not taken
}
