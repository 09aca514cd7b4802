package relay

import (
	"syscall"

	"utilityvm/agent/internal/hvsocket"
	"utilityvm/agent/internal/loop"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// joint is a socket of a program and the stream to the host that is its other half. Each direction ends by itself.
type joint struct {
	loop   *loop.Loop
	stream *hvsocket.Stream
	fd     int
	silent bool // nothing more comes from the program
	deaf   bool // the program takes nothing more
}

// Join dials the host's port and passes bytes between it and fd, a connected non-blocking socket, which it closes at the end.
func Join(l *loop.Loop, socket *hvsocket.Socket, fd int, port uint32) {
	j := &joint{loop: l, fd: fd}
	j.stream = socket.Dial(port, j)
	if err := l.Watch(fd, sys.In|sys.Out, j); err != nil {
		l.Stop(err)
	}
}

// Ready implements loop.Source.
func (j *joint) Ready(events uint32) {
	if !j.deaf && !sys.Listens(j.fd) {
		j.deafen()
		j.stream.Resume() // drops what was not read
	}
	if !j.silent && events&(sys.In|sys.Hup|sys.Err) != 0 {
		j.stream.Ready()
	}
	if events&sys.Out != 0 {
		j.stream.Resume()
	}
}

// Opened implements hvsocket.User.
func (j *joint) Opened() {}

// Receive implements hvsocket.User.
func (j *joint) Receive(p []byte) int {
	if j.deaf {
		return len(p)
	}
	n, errno := sys.Write(j.fd, p)
	if errno != 0 && errno != sys.Again {
		j.deafen()
		return len(p)
	}
	return n
}

// Fill implements hvsocket.User.
func (j *joint) Fill(p []byte) (int, bool) {
	if j.silent {
		return 0, false
	}
	n, errno := sys.Read(j.fd, p)
	switch {
	case errno == sys.Again:
		return 0, false
	case n > 0:
		return n, true
	}
	j.silence()
	return 0, false
}

// Shut implements hvsocket.User.
func (j *joint) Shut(sends, receives bool) {
	noMore, unheard := !sends && !j.deaf, !receives && !j.silent
	switch {
	case noMore && unheard:
		sys.Shut(j.fd, syscall.SHUT_RDWR) // at once, or the program could write between the two
	case noMore:
		sys.Shut(j.fd, syscall.SHUT_WR)
	case unheard:
		sys.Shut(j.fd, syscall.SHUT_RD)
	}
	j.deaf = j.deaf || noMore
	if unheard {
		j.silence()
	}
	j.close()
}

// Closed implements hvsocket.User.
func (j *joint) Closed() {
	j.silent, j.deaf = true, true
	j.close()
}

// silence tells the host that the program says no more.
func (j *joint) silence() {
	j.silent = true
	j.stream.Shutdown(wire.ShutSend)
	j.close()
}

// deafen tells the host that the program takes no more.
func (j *joint) deafen() {
	j.deaf = true
	j.stream.Shutdown(wire.ShutReceive)
	j.close()
}

// close gives the socket up once neither direction needs it.
func (j *joint) close() {
	if j.silent && j.deaf && j.fd >= 0 {
		j.loop.Close(j.fd)
		j.fd = -1
	}
}
