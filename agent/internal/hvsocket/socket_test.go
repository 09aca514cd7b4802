package hvsocket

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"

	"utilityvm/agent/internal/loop"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// whim decides what users of streams do, from the fuzzer's bytes.
type whim struct {
	bytes []byte
	at    int
}

func (w *whim) next() int {
	if len(w.bytes) == 0 {
		return 0
	}
	w.at++
	return int(w.bytes[w.at%len(w.bytes)])
}

// user is a stream's user who does anything that User allows.
type user struct {
	t      *testing.T
	whim   *whim
	stream *Stream
	left   int // bytes that Fill may still give
	opened bool
	closed bool
}

func (u *user) alive(what string) {
	if u.closed {
		u.t.Fatalf("%s after Closed", what)
	}
}

func (u *user) Opened() {
	u.alive("Opened")
	if u.opened {
		u.t.Fatal("opened twice")
	}
	u.opened = true
	u.stream.Ready()
}

func (u *user) Receive(p []byte) int {
	u.alive("Receive")
	if len(p) == 0 {
		u.t.Fatal("no bytes received")
	}
	switch u.whim.next() % 4 {
	case 0:
		return 0
	case 1:
		return 1
	}
	return len(p)
}

func (u *user) Fill(p []byte) (int, bool) {
	u.alive("Fill")
	n := u.whim.next() % 200
	if n > len(p) {
		n = len(p)
	}
	if n > u.left {
		n = u.left
	}
	u.left -= n
	return n, u.left > 0 && n > 0
}

func (u *user) Shut(sends, receives bool) {
	u.alive("Shut")
	if !sends && u.whim.next()%2 == 0 {
		u.stream.Shutdown(wire.ShutBoth)
	}
}

func (u *user) Closed() {
	u.alive("Closed")
	u.closed = true
}

// owner dials whatever the host listens on.
type owner struct {
	t      *testing.T
	whim   *whim
	socket *Socket
	users  []*user
	saved  int
}

func (o *owner) Reset() {}

func (o *owner) Silent(uint32) {}

func (o *owner) Saved() { o.saved++ }

func (o *owner) Listening(port, _ uint32) {
	if len(o.users) < 100 {
		u := &user{t: o.t, whim: o.whim, left: 1000}
		u.stream = o.socket.Dial(port, u)
		o.users = append(o.users, u)
	}
}

// act lets users do something without being asked.
func (o *owner) act() {
	for _, u := range o.users {
		if u.closed {
			continue
		}
		switch o.whim.next() % 8 {
		case 0:
			u.stream.Ready()
		case 1:
			u.stream.Resume()
		case 2:
			u.stream.Finish(wire.ShutSend)
		case 3:
			u.stream.Shutdown(wire.ShutReceive)
		case 4:
			u.stream.Reset()
			u.closed = true
		}
	}
}

// check fails when the socket holds more than it may.
func (o *owner) check() {
	s := o.socket
	if len(s.out)+len(s.held) > maxQueue+2*maxWrite {
		o.t.Fatalf("%d bytes are queued", len(s.out)+len(s.held))
	}
	if len(s.streams) > len(o.users) {
		o.t.Fatalf("%d streams of %d", len(s.streams), len(o.users))
	}
	for _, st := range s.streams {
		if len(st.unread) > wire.Window || st.conn.Unread() > wire.Window || st.conn.Unread() < 0 {
			o.t.Fatalf("%d bytes unread, %d by count", len(st.unread), st.conn.Unread())
		}
		if st.conn.State == wire.Closed {
			o.t.Fatal("a closed stream is remembered")
		}
	}
	if len(s.windows) > spareWindows {
		o.t.Fatalf("%d spare windows", len(s.windows))
	}
}

// script is what a host may send to a guest whose first dials go to the ports 5 and 6.
func script() []byte {
	const local = firstPort
	var out []byte
	for _, p := range []wire.Packet{
		{Type: wire.TypeControl, Op: wire.CtlReset, Payload: make([]byte, wire.NonceSize)},
		{Type: wire.TypeControl, Op: wire.CtlListen, DstPort: 5},
		{Type: wire.TypeStream, Op: wire.OpResponse, SrcPort: 5, DstPort: local, BufAlloc: 4096},
		{Type: wire.TypeStream, Op: wire.OpRW, SrcPort: 5, DstPort: local, BufAlloc: 4096, Payload: []byte("hello")},
		{Type: wire.TypeControl, Op: wire.CtlListen, DstPort: 6, Flags: wire.Once},
		{Type: wire.TypeControl, Op: wire.CtlListen, DstPort: 7, Flags: wire.Once | wire.Programs},
		{Type: wire.TypeStream, Op: wire.OpResponse, SrcPort: 6, DstPort: local + 1, BufAlloc: 10},
		{Type: wire.TypeStream, Op: wire.OpCreditUpdate, SrcPort: 6, DstPort: local + 1, BufAlloc: 4096, FwdCnt: 10},
		{Type: wire.TypeStream, Op: wire.OpCreditRequest, SrcPort: 5, DstPort: local},
		{Type: wire.TypeControl, Op: wire.CtlQuiesce},
		{Type: wire.TypeStream, Op: wire.OpShutdown, SrcPort: 5, DstPort: local, Flags: wire.ShutSend},
		{Type: wire.TypeStream, Op: wire.OpRW, SrcPort: 6, DstPort: local + 1, BufAlloc: 4096, Payload: make([]byte, 3000)},
		{Type: wire.TypeStream, Op: wire.OpShutdown, SrcPort: 6, DstPort: local + 1, Flags: wire.ShutBoth},
		{Type: wire.TypeStream, Op: wire.OpRst, SrcPort: 5, DstPort: local},
	} {
		p := p
		out = wire.AppendPacket(out, &p, wire.FromHost)
	}
	return out
}

// golden returns the streams of protocol/golden that a host sends.
func golden(t testing.TB) (out [][]byte) {
	text, err := os.ReadFile("../../wire/testdata/golden/packets.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []struct{ From, Hex string }
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	for _, v := range list {
		if data, err := hex.DecodeString(strings.ReplaceAll(v.Hex, " ", "")); err == nil && v.From == "host" {
			out = append(out, data)
		}
	}
	return out
}

// FuzzSocket gives a guest's end whatever a host may send, over a socket pair, with users who do what they like.
func FuzzSocket(f *testing.F) {
	f.Add(script(), []byte{})
	f.Add(script(), []byte{7, 1, 255, 2, 9, 100})
	for _, data := range golden(f) {
		f.Add(append(script()[:104:104], data...), []byte{3, 5, 11})
	}
	l, err := loop.New()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, stream, bytes []byte) {
		if len(stream) > 1<<16 {
			return // more than a socket holds
		}
		pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close(pair[1])
		defer syscall.Close(pair[0])
		o := &owner{t: t, whim: &whim{bytes: bytes}}
		if o.socket, err = New(l, pair[1], false, o); err != nil {
			t.Fatal(err)
		}
		for len(stream) > 0 {
			n := 1 + o.whim.next()*o.whim.next()
			if n > len(stream) {
				n = len(stream)
			}
			if _, err := syscall.Write(pair[0], stream[:n]); err != nil {
				t.Fatal(err)
			}
			stream = stream[n:]
			o.socket.Ready(sys.In)
			o.socket.Work()
			o.check()
			o.act()
			o.check()
		}
	})
}
