package wire

// Window is the receive buffer of one connection in bytes: what the peer may send before our reader has taken any.
const Window = 512 * 1024

// State is where a connection that we dialled is in its life.
type State uint8

// The states of a connection.
const (
	Dialling State = iota
	Open
	Closed
)

// Event is what a packet means to the user of a connection. Several may be set.
type Event uint8

// What can happen to a connection.
const (
	EvOpened Event = 1 << iota // the peer accepted
	EvData                     // the packet's payload is for the reader
	EvShut                     // PeerShut has changed
	EvCredit                   // there may be more room to send
	EvEnded                    // forgotten
)

// Conn is the state of one connection: what was sent, what the peer has room for, who has shut what. It decides which
// packets answer which; it stores no payload.
type Conn struct {
	LocalPort uint32
	PeerPort  uint32
	State     State
	PeerShut  uint32 // bits of SHUTDOWN that came
	Shut      uint32 // bits of SHUTDOWN that we sent

	peerAlloc, peerTaken uint32
	sent                 uint32
	received             uint32
	taken                uint32
	told                 uint32 // the taken that the peer knows of
}

// Dial returns a connection that waits for the answer to its REQUEST, which is what Packet(OpRequest) makes.
func Dial(local, peer uint32) Conn {
	return Conn{LocalPort: local, PeerPort: peer}
}

// Room returns how many bytes may be sent now.
func (c *Conn) Room() int {
	if c.State != Open || c.Shut&ShutSend != 0 || c.PeerShut&ShutReceive != 0 {
		return 0
	}
	underWay := c.sent - c.peerTaken // wraps as the wire does
	if underWay >= c.peerAlloc {
		return 0
	}
	return int(c.peerAlloc - underWay)
}

// Unread returns how many received bytes the reader has not taken.
func (c *Conn) Unread() int {
	return int(c.received - c.taken)
}

// Packet returns a packet of this connection with operation op, which tells the peer what was taken.
func (c *Conn) Packet(op Op) Packet {
	p := Packet{Type: TypeStream, Op: op, SrcPort: c.LocalPort, DstPort: c.PeerPort}
	if op != OpRst {
		p.BufAlloc, p.FwdCnt = Window, c.taken
		c.told = c.taken
	}
	return p
}

// Sent says that n bytes of payload were sent.
func (c *Conn) Sent(n int) {
	c.sent += uint32(n)
}

// Taken says that the reader has used n bytes. It reports whether the peer should now get a CREDIT_UPDATE.
func (c *Conn) Taken(n int) bool {
	c.taken += uint32(n)
	return c.State == Open && c.PeerShut&ShutSend == 0 && Window-(c.received-c.told) < Window/2 && c.taken != c.told
}

// Shutdown returns the SHUTDOWN that says that we do what bits name no more; ok is false when the peer knows already.
func (c *Conn) Shutdown(bits uint32) (p Packet, ok bool) {
	if c.State != Open || c.Shut|bits == c.Shut {
		return p, false
	}
	c.Shut |= bits
	p = c.Packet(OpShutdown)
	p.Flags = c.Shut
	return p, true
}

// Receive takes a packet of this connection. It returns what the packet means and, unless it is 0, the operation of
// the packet that must answer it. After EvEnded the connection must be forgotten.
func (c *Conn) Receive(p *Packet) (Event, Op) {
	if p.Op == OpRst {
		c.State = Closed
		return EvEnded, 0
	}
	if p.Op == OpRequest || (p.Op == OpResponse) != (c.State == Dialling) {
		return c.reset()
	}
	c.peerAlloc, c.peerTaken = p.BufAlloc, p.FwdCnt
	switch p.Op {
	case OpResponse:
		c.State = Open
		return EvOpened, 0
	case OpRW:
		return c.data(len(p.Payload))
	case OpShutdown:
		return c.peerShut(p.Flags & ShutBoth)
	case OpCreditRequest:
		return EvCredit, OpCreditUpdate
	}
	return EvCredit, 0
}

func (c *Conn) data(size int) (Event, Op) {
	if c.PeerShut&ShutSend != 0 || c.Unread()+size > Window {
		return c.reset()
	}
	if c.Shut&ShutReceive != 0 {
		return EvCredit, 0 // sent before the peer knew
	}
	c.received += uint32(size)
	return EvData | EvCredit, 0
}

func (c *Conn) peerShut(bits uint32) (Event, Op) {
	c.PeerShut |= bits
	if c.Shut&c.PeerShut&ShutSend != 0 {
		c.State = Closed
		return EvShut | EvEnded, OpRst
	}
	return EvShut | EvCredit, 0
}

func (c *Conn) reset() (Event, Op) {
	c.State = Closed
	return EvEnded, OpRst
}
