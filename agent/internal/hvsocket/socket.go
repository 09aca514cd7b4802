// Package hvsocket is the guest's end of the guest connection: streams that we dial, over one carrier
// (protocol/SPEC.md sections 1 to 4).
//
// Nothing is queued toward the host but control packets and at most one write of data: a stream's user is asked for its
// bytes when they can be sent, so a host that does not read stops the program that writes.
package hvsocket

import (
	"utilityvm/agent/internal/loop"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

const (
	// maxWrite is what the kernel's virtio port takes in one write, in bytes.
	maxWrite = 32 * 1024
	// worthFilling is the least room in a write, in bytes, for which another packet of data is begun.
	worthFilling = 8 * 1024
	// maxQueue bounds the packets that wait for the host, in bytes. Only a host that asks without reading gets there.
	maxQueue = 1024 * 1024
	// maxReads is how many reads are made in a row before others have their turn.
	maxReads = 16
	// companyWait is how long the end of a program's output waits for the end of the program, in milliseconds: mostly
	// they are one, and a write less is a tenth of a millisecond less for host and guest.
	companyWait = 1
	// firstPort begins the range of our source ports, which wraps at its end.
	firstPort = 0x80000000
)

// Owner hears what concerns no stream.
type Owner interface {
	// Saved says that the machine goes on from what was saved between two packets, with a host that begins anew: what is to outlive its
	// stream parts from it now. Reset follows.
	Saved()
	// Reset says that the host began anew: every stream has been closed, and nothing is listened to.
	Reset()
	// Listening says that the host has begun to listen on a port; flags are those of its LISTEN.
	Listening(port, flags uint32)
	// Silent says that the host listens on a port no more.
	Silent(port uint32)
}

// Error ends the carrier.
type Error string

func (e Error) Error() string { return "guest connection: " + string(e) }

type ports struct{ local, peer uint32 }

// Socket is one guest connection.
type Socket struct {
	loop     *loop.Loop
	fd       int
	owner    Owner
	endless  bool // the carrier may end and come back
	reader   *wire.PacketReader
	readable bool
	blocked  bool // the carrier is full; epoll tells when it is not

	out   []byte // packets for the host, sent up to head
	head  int
	quiet bool   // the host wants silence
	held  []byte // packets for after the silence

	promised map[uint32]bool // ports on which the host listens; true until the first dial
	streams  map[ports]*Stream
	ready    []*Stream // have something to send, and credit
	next     uint32
	windows  [][]byte // receive buffers that are not in use
	nextTurn []*Stream
	lazy     int  // bytes of out that may wait for company
	waited   bool // they have
}

// New serves the guest connection on the carrier fd, which must not block. With endless the end of the carrier is
// waited out, as on a port that a host opens anew; without it ends the loop.
func New(l *loop.Loop, fd int, endless bool, owner Owner) (*Socket, error) {
	s := &Socket{
		loop: l, fd: fd, owner: owner, endless: endless, readable: true,
		reader:   wire.NewPacketReader(wire.FromHost),
		out:      make([]byte, 0, 2*maxWrite),
		promised: make(map[uint32]bool),
		streams:  make(map[ports]*Stream),
		next:     firstPort,
	}
	return s, l.Watch(fd, sys.In, s)
}

// Ready implements loop.Source.
func (s *Socket) Ready(events uint32) {
	if events&(sys.In|sys.Hup|sys.Err) != 0 {
		s.readable = true
	}
	if s.blocked && events&sys.Out != 0 {
		s.blocked = false
		s.check(s.loop.Change(s.fd, sys.In))
	}
}

// Work implements loop.Worker: it reads what came and sends what is ready.
func (s *Socket) Work() int {
	s.receive()
	s.send()
	switch {
	case s.readable || len(s.ready) > 0 && !s.blocked && !s.quiet:
		return 0
	case s.waited:
		return companyWait
	}
	return loop.Forever
}

func (s *Socket) check(err error) {
	if err != nil {
		s.loop.Stop(err)
	}
}

// -- from the host ----------------------------------------------------------------------------------------------------

func (s *Socket) receive() {
	for i := 0; s.readable && i < maxReads; i++ {
		n, errno := sys.Read(s.fd, s.reader.Space())
		switch {
		case errno == sys.Again:
			s.readable = false
			return
		case errno != 0:
			s.loop.Stop(errno)
			return
		case n == 0:
			s.readable = false
			if !s.endless {
				s.loop.Stop(nil)
			}
			return
		}
		s.reader.Filled(n)
		for {
			p, ok, err := s.reader.Next()
			if err != nil {
				s.readable = false
				s.loop.Stop(err)
				return
			}
			if !ok {
				break
			}
			s.packet(&p)
		}
	}
}

func (s *Socket) packet(p *wire.Packet) {
	saved := s.quiet && p.Type == wire.TypeControl && p.Op == wire.CtlReset
	if s.quiet {
		s.quiet = false
		s.out = append(s.out, s.held...)
		s.held = nil
	}
	if saved {
		s.owner.Saved()
	}
	if p.Type == wire.TypeControl {
		s.control(p)
		return
	}
	st := s.streams[ports{p.DstPort, p.SrcPort}]
	if st != nil {
		st.receive(p)
	} else if p.Op != wire.OpRst {
		s.push(&wire.Packet{Type: wire.TypeStream, Op: wire.OpRst, SrcPort: p.DstPort, DstPort: p.SrcPort})
	}
}

func (s *Socket) control(p *wire.Packet) {
	switch p.Op {
	case wire.CtlReset:
		s.reset(p.Payload)
	case wire.CtlListen:
		s.promised[p.DstPort] = p.Flags&wire.Once != 0
		s.owner.Listening(p.DstPort, p.Flags)
	case wire.CtlUnlisten:
		delete(s.promised, p.DstPort) // a dial that is under way is answered with RST
		s.owner.Silent(p.DstPort)
	case wire.CtlQuiesce:
		s.push(&wire.Packet{Type: wire.TypeControl, Op: wire.CtlQuiesced})
		s.quiet = true
	default:
		s.loop.Stop(Error("the host sent what only a guest may send"))
	}
}

// reset forgets everything and answers with nonce. What the old era still had to say is not sent: the host discards it.
func (s *Socket) reset(nonce []byte) {
	old := s.streams
	s.promised, s.streams = make(map[uint32]bool), make(map[ports]*Stream)
	s.out, s.held, s.ready = s.out[:0], nil, nil
	s.push(&wire.Packet{Type: wire.TypeControl, Op: wire.CtlResetAck, Payload: nonce})
	for _, st := range old {
		st.conn.State = wire.Closed
		st.end()
	}
	s.owner.Reset()
}

// -- to the host ------------------------------------------------------------------------------------------------------

// push queues a packet without data of a user.
func (s *Socket) push(p *wire.Packet) {
	if s.quiet {
		s.held = wire.AppendPacket(s.held, p, wire.FromGuest)
	} else {
		s.out = wire.AppendPacket(s.out, p, wire.FromGuest)
	}
	if len(s.out)+len(s.held) > maxQueue {
		s.loop.Stop(Error("the host asks and does not read the answers"))
	}
}

// send writes what is queued and then, from every ready stream in turn, a packet of data. Small packets share a write.
func (s *Socket) send() {
	turn := s.ready
	s.ready = s.nextTurn[:0]
	for i, st := range turn {
		if len(s.out) > maxWrite-worthFilling {
			s.flush()
		}
		if s.blocked || s.quiet {
			s.ready = append(s.ready, turn[i:]...)
			break
		}
		st.queued = false
		s.fill(st)
	}
	s.nextTurn = turn[:0]
	if s.lazy == 0 || s.lazy < len(s.out) || s.waited {
		s.flush()
	}
	s.waited = s.lazy > 0
}

// fill asks the user of st for a packet's bytes, right behind what is queued.
func (s *Socket) fill(st *Stream) {
	start := len(s.out) + wire.HeaderSize
	space := maxWrite - start
	if room := st.conn.Room(); room < space {
		space = room
	}
	if space <= 0 {
		return // EvCredit queues it again
	}
	s.grow(wire.HeaderSize + space)
	st.wants = false
	n, more := st.user.Fill(s.out[start : start+space : start+space])
	st.wants = st.wants || more
	if n > 0 {
		p := st.conn.Packet(wire.OpRW)
		wire.PutHeader(s.out[start-wire.HeaderSize:start], &p, wire.FromGuest, n)
		s.out = s.out[:start+n]
		st.conn.Sent(n)
	}
	st.enqueue()
}

// grow makes the capacity of out at least size larger than its length.
func (s *Socket) grow(size int) {
	if cap(s.out)-len(s.out) < size {
		s.out = append(make([]byte, 0, len(s.out)+size+maxWrite), s.out...)
	}
}

func (s *Socket) flush() {
	sent := 0
	s.lazy = 0
	for sent < len(s.out) && !s.blocked {
		end := len(s.out)
		if end > sent+maxWrite {
			end = sent + maxWrite
		}
		n, errno := sys.Write(s.fd, s.out[sent:end])
		switch {
		case errno == sys.Again || errno == 0 && n == 0:
			s.blocked = true
			s.check(s.loop.Change(s.fd, sys.In|sys.Out))
		case errno != 0 && !s.endless:
			s.loop.Stop(nil) // the host is gone
			return
		case errno != 0:
			s.loop.Stop(errno)
			return
		}
		sent += n
	}
	s.out = s.out[:copy(s.out, s.out[sent:])]
}
