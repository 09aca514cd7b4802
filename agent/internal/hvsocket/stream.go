package hvsocket

import "utilityvm/agent/wire"

// User is who uses a stream. Its methods are called from the loop. They may call methods of the stream, with one
// exception: Fill must not when it returns bytes.
type User interface {
	// Opened says that the host has accepted.
	Opened()
	// Receive takes bytes from the host and returns how many it took. What it leaves comes again after Resume.
	Receive(p []byte) int
	// Fill puts bytes for the host into p and returns how many. more false says that there are none left, until Ready.
	Fill(p []byte) (n int, more bool)
	// Shut says that the host sends no more, everything having been received, or that it takes no more.
	Shut(sends, receives bool)
	// Closed says that the stream is no more, everything having been received: refused, reset, or ended in order.
	Closed()
}

// Stream is a connection to a port of the host.
type Stream struct {
	socket *Socket
	conn   wire.Conn
	user   User
	queued bool   // in the socket's list
	wants  bool   // the user has something to send
	unread []byte // received and not taken
	kept   []byte // the buffer that unread is a part of
	ended  bool   // Closed is owed or was said
	told   uint32 // what the user knows of the host's SHUTDOWNs
	owed   uint32 // bits of a SHUTDOWN from before the host's RESPONSE
}

// Promised reports whether the host listens on port, so that the next dial to it can be relied on.
func (s *Socket) Promised(port uint32) bool {
	_, listens := s.promised[port]
	return listens
}

// Dial asks the host for a connection to port, on behalf of user.
func (s *Socket) Dial(port uint32, user User) *Stream {
	for s.streams[ports{s.next, port}] != nil {
		s.count()
	}
	st := &Stream{socket: s, conn: wire.Dial(s.next, port), user: user}
	s.count()
	s.streams[ports{st.conn.LocalPort, port}] = st
	if s.promised[port] {
		delete(s.promised, port)
	}
	st.send(wire.OpRequest)
	return st
}

func (s *Socket) count() {
	if s.next++; s.next < firstPort {
		s.next = firstPort
	}
}

// Ready says that Fill has something to give.
func (st *Stream) Ready() {
	st.wants = true
	st.enqueue()
}

// Resume offers again what the user did not take.
func (st *Stream) Resume() {
	for len(st.unread) > 0 {
		n := st.user.Receive(st.unread)
		if n == 0 || st.kept == nil { // nothing taken, or reset meanwhile
			return
		}
		st.unread = st.unread[n:]
		st.taken(n)
	}
	st.release()
	st.settle()
}

// Shutdown tells the host that we send no more, receive no more, or both (wire.ShutSend, ShutReceive, ShutBoth).
func (st *Stream) Shutdown(bits uint32) {
	if st.conn.State == wire.Dialling {
		st.owed |= bits
		return
	}
	if p, ok := st.conn.Shutdown(bits); ok {
		st.socket.push(&p)
	}
}

// Finish is Shutdown in no hurry: the packet may wait a little for others to go with.
func (st *Stream) Finish(bits uint32) {
	before := len(st.socket.out)
	st.Shutdown(bits)
	st.socket.lazy += len(st.socket.out) - before
}

// Reset ends the stream at once. The user hears no more.
func (st *Stream) Reset() {
	st.user = deaf{}
	if st.conn.State != wire.Closed {
		st.conn.State = wire.Closed
		st.send(wire.OpRst)
		st.forget()
	}
	st.release()
}

// Part gives the stream up for its user, which hears no more. It returns what has come and was not taken, and whether nothing would have
// followed that.
func (st *Stream) Part() (unread []byte, last bool) {
	unread, last = append(unread, st.unread...), st.ended || st.conn.PeerShut&wire.ShutSend != 0
	st.user = deaf{}
	st.release()
	return unread, last
}

// receive takes a packet of this stream.
func (st *Stream) receive(p *wire.Packet) {
	event, answer := st.conn.Receive(p)
	if answer != 0 {
		st.send(answer)
	}
	if event&wire.EvOpened != 0 {
		st.user.Opened()
		st.enqueue()
		st.Shutdown(st.owed)
	}
	if event&wire.EvData != 0 {
		st.data(p.Payload)
	}
	if event&wire.EvShut != 0 {
		st.settle()
	}
	if event&wire.EvCredit != 0 {
		st.enqueue()
	}
	if event&wire.EvEnded != 0 {
		st.forget()
		st.end()
	}
}

// data hands bytes to the user and keeps what it does not take: at most wire.Window, which the credit sees to.
func (st *Stream) data(p []byte) {
	if len(st.unread) == 0 {
		n := st.user.Receive(p)
		p = p[n:]
		if n > 0 {
			st.taken(n)
		}
	}
	if len(p) == 0 {
		return
	}
	if st.kept == nil {
		st.kept = st.socket.window()
	}
	if len(st.unread) == 0 {
		st.unread = st.kept[:0]
	} else if cap(st.unread)-len(st.unread) < len(p) {
		st.unread = st.kept[:copy(st.kept, st.unread)]
	}
	st.unread = append(st.unread, p...)
}

func (st *Stream) taken(n int) {
	if st.conn.Taken(n) {
		st.send(wire.OpCreditUpdate)
	}
}

// settle tells the user what was owed until everything had been received.
func (st *Stream) settle() {
	shut := st.conn.PeerShut
	if len(st.unread) > 0 {
		shut &^= wire.ShutSend
	}
	if shut != st.told {
		st.told = shut
		st.user.Shut(shut&wire.ShutSend == 0, shut&wire.ShutReceive == 0)
	}
	if st.ended && len(st.unread) == 0 {
		user := st.user
		st.user = deaf{}
		user.Closed()
	}
}

// end notes that the connection is no more and tells the user once it has everything.
func (st *Stream) end() {
	st.ended = true
	st.settle()
}

func (st *Stream) enqueue() {
	if st.wants && !st.queued && st.conn.Room() > 0 {
		st.queued = true
		st.socket.ready = append(st.socket.ready, st)
	}
}

func (st *Stream) forget() {
	delete(st.socket.streams, ports{st.conn.LocalPort, st.conn.PeerPort})
}

func (st *Stream) send(op wire.Op) {
	p := st.conn.Packet(op)
	st.socket.push(&p)
}

// window returns a receive buffer. They are kept for the next stream: only streams that hold data have one.
func (s *Socket) window() []byte {
	if last := len(s.windows) - 1; last >= 0 {
		w := s.windows[last]
		s.windows = s.windows[:last]
		return w
	}
	return make([]byte, wire.Window)
}

// spareWindows is how many unused receive buffers are kept.
const spareWindows = 2

func (st *Stream) release() {
	if st.kept == nil {
		return
	}
	if len(st.socket.windows) < spareWindows {
		st.socket.windows = append(st.socket.windows, st.kept)
	}
	st.kept, st.unread = nil, nil
}

// deaf is the user of a stream whose user wants no more.
type deaf struct{}

func (deaf) Opened()                   {}
func (deaf) Receive(p []byte) int      { return len(p) }
func (deaf) Fill([]byte) (int, bool)   { return 0, false }
func (deaf) Shut(sends, receives bool) {}
func (deaf) Closed()                   {}
