// Package wire holds the forms of the guest connection and nothing that touches the outside: packets, the state of one
// connection, GCS frames and messages, shell words. It never panics, whatever bytes it is given. protocol/SPEC.md.
package wire

import (
	"encoding/binary"
	"strconv"
)

const (
	// HeaderSize is the length of a packet's header in bytes.
	HeaderSize = 44
	// MaxPayload is the largest payload of one packet in bytes.
	MaxPayload = 65536
	// NonceSize is the length of the nonce of a transport reset in bytes.
	NonceSize = 16

	// TypeStream and TypeControl are the two types of packets.
	TypeStream  = 1
	TypeControl = 0x7576

	hostCID  = 2
	guestCID = 3
)

// Op is the operation of a packet; its meaning depends on the packet's type.
type Op uint16

// Operations of stream packets (SPEC section 3).
const (
	OpRequest Op = iota + 1
	OpResponse
	OpRst
	OpShutdown
	OpRW
	OpCreditUpdate
	OpCreditRequest
)

// Operations of control packets (SPEC section 4).
const (
	CtlReset Op = iota + 1
	CtlResetAck
	CtlListen
	CtlUnlisten
	CtlQuiesce
	CtlQuiesced
)

// Bits of the flags of SHUTDOWN: what the sender will no longer do.
const (
	ShutReceive = 1
	ShutSend    = 2
	ShutBoth    = ShutReceive | ShutSend
)

// Bits of the flags of LISTEN: until the first REQUEST; programs may dial the port by AF_VSOCK as well.
const (
	Once     = 1
	Programs = 2
)

// Sender says who wrote a packet, which decides the CIDs.
type Sender int

// The two ends of the guest connection.
const (
	FromHost Sender = iota
	FromGuest
)

func (s Sender) cids() (src, dst uint64) {
	if s == FromHost {
		return hostCID, guestCID
	}
	return guestCID, hostCID
}

// Packet is one packet without its CIDs. Payload belongs to whoever made the packet.
type Packet struct {
	Type     uint16
	Op       Op
	SrcPort  uint32
	DstPort  uint32
	Flags    uint32
	BufAlloc uint32
	FwdCnt   uint32
	Payload  []byte
}

// PutHeader writes the header of p into the first HeaderSize bytes of b; size is the payload's length.
func PutHeader(b []byte, p *Packet, from Sender, size int) {
	src, dst := from.cids()
	_ = b[HeaderSize-1]
	binary.LittleEndian.PutUint64(b[0:], src)
	binary.LittleEndian.PutUint64(b[8:], dst)
	binary.LittleEndian.PutUint32(b[16:], p.SrcPort)
	binary.LittleEndian.PutUint32(b[20:], p.DstPort)
	binary.LittleEndian.PutUint32(b[24:], uint32(size))
	binary.LittleEndian.PutUint16(b[28:], p.Type)
	binary.LittleEndian.PutUint16(b[30:], uint16(p.Op))
	binary.LittleEndian.PutUint32(b[32:], p.Flags)
	binary.LittleEndian.PutUint32(b[36:], p.BufAlloc)
	binary.LittleEndian.PutUint32(b[40:], p.FwdCnt)
}

// AppendPacket appends the bytes of p to b.
func AppendPacket(b []byte, p *Packet, from Sender) []byte {
	var header [HeaderSize]byte
	PutHeader(header[:], p, from, len(p.Payload))
	return append(append(b, header[:]...), p.Payload...)
}

// Reasons for which a packet is refused (SPEC section 2). The golden vectors use the same words.
const (
	ReasonLong    = "payload-too-long"
	ReasonCIDs    = "wrong-cids"
	ReasonType    = "unknown-type"
	ReasonOp      = "unknown-op"
	ReasonPayload = "payload-of-wrong-size"
)

// PacketError says that the peer sent what no packet may be. The carrier is broken.
type PacketError struct {
	Reason string
	Offset uint64 // where the packet begins in the stream
}

func (e *PacketError) Error() string {
	return "guest connection, byte " + strconv.FormatUint(e.Offset, 10) + ": " + e.Reason
}

// readSize is how much the kernel gives at a time: a virtio-serial port hands out its 4 KiB buffers one by one.
const readSize = 4096

// PacketReader cuts a byte stream into packets. The caller reads into Space, says how much with Filled, and takes
// packets with Next until there is none. It holds at most twice the largest packet.
type PacketReader struct {
	from       Sender
	buf        []byte
	start, end int
	offset     uint64
	err        error
}

// NewPacketReader returns a reader of what from sends.
func NewPacketReader(from Sender) *PacketReader {
	return &PacketReader{from: from, buf: make([]byte, 2*(HeaderSize+MaxPayload))}
}

// Space returns where the next bytes go, at least readSize long. It is valid until the next call of any method, and
// it invalidates the payloads that Next has returned.
func (r *PacketReader) Space() []byte {
	if r.start == r.end {
		r.start, r.end = 0, 0
	} else if len(r.buf)-r.end < readSize {
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	}
	return r.buf[r.end:]
}

// Filled says that n bytes were put into Space.
func (r *PacketReader) Filled(n int) {
	r.end += n
}

// Next returns the next complete packet. After an error it returns that error again.
func (r *PacketReader) Next() (p Packet, ok bool, err error) {
	data := r.buf[r.start:r.end]
	if r.err != nil || len(data) < HeaderSize {
		return p, false, r.err
	}
	size := int64(binary.LittleEndian.Uint32(data[24:]))
	p = Packet{
		Type:     binary.LittleEndian.Uint16(data[28:]),
		Op:       Op(binary.LittleEndian.Uint16(data[30:])),
		SrcPort:  binary.LittleEndian.Uint32(data[16:]),
		DstPort:  binary.LittleEndian.Uint32(data[20:]),
		Flags:    binary.LittleEndian.Uint32(data[32:]),
		BufAlloc: binary.LittleEndian.Uint32(data[36:]),
		FwdCnt:   binary.LittleEndian.Uint32(data[40:]),
	}
	if reason := r.refuse(data, &p, size); reason != "" {
		r.err = &PacketError{reason, r.offset}
		return Packet{}, false, r.err
	}
	whole := HeaderSize + int(size)
	if len(data) < whole {
		return Packet{}, false, nil
	}
	p.Payload = data[HeaderSize:whole:whole]
	r.start += whole
	r.offset += uint64(whole)
	return p, true, nil
}

// refuse names what is wrong with a header, before its payload is waited for.
func (r *PacketReader) refuse(data []byte, p *Packet, size int64) string {
	src, dst := r.from.cids()
	switch {
	case size > MaxPayload:
		return ReasonLong
	case binary.LittleEndian.Uint64(data[0:]) != src || binary.LittleEndian.Uint64(data[8:]) != dst:
		return ReasonCIDs
	case p.Type != TypeStream && p.Type != TypeControl:
		return ReasonType
	}
	last, right := OpCreditRequest, size == 0
	switch {
	case p.Type == TypeControl:
		last = CtlQuiesced
		if p.Op == CtlReset || p.Op == CtlResetAck {
			right = size == NonceSize
		}
	case p.Op == OpRW:
		right = size > 0
	}
	switch {
	case p.Op == 0 || p.Op > last:
		return ReasonOp
	case !right:
		return ReasonPayload
	}
	return ""
}
