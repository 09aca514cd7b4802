package share

import (
	"bytes"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"utilityvm/agent/internal/sys"
	"utilityvm/agent/internal/sys/systest"
	"utilityvm/agent/wire"
)

const port = 564

// host is the host's end of a carrier, and control the agent's end of the process's socket.
type host struct {
	t       *testing.T
	carrier *os.File
	control int
	reader  *wire.PacketReader
	guest   uint32 // the guest's port of the last dial
	ended   chan error
}

// serve runs the process in a goroutine, and begins an era.
func serve(t *testing.T) *host {
	t.Helper()
	carrier, theirs, err := sys.LocalPair(syscall.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	control, serving, err := sys.LocalPair(syscall.SOCK_SEQPACKET)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, carrier: os.NewFile(uintptr(carrier), "carrier"), control: control, reader: wire.NewPacketReader(wire.FromGuest), ended: make(chan error, 1)}
	go func() { h.ended <- Serve(theirs, serving, false) }()
	_ = h.carrier.SetDeadline(time.Now().Add(30 * time.Second))
	h.send(wire.Packet{Type: wire.TypeControl, Op: wire.CtlReset, Payload: make([]byte, 16)})
	h.expect(wire.CtlResetAck)
	return h
}

func (h *host) send(p wire.Packet) {
	h.t.Helper()
	if _, err := h.carrier.Write(wire.AppendPacket(nil, &p, wire.FromHost)); err != nil {
		h.t.Fatal(err)
	}
}

// expect reads the next packet, which must be of this operation.
func (h *host) expect(op wire.Op) wire.Packet {
	h.t.Helper()
	for {
		p, ok, err := h.reader.Next()
		if err != nil {
			h.t.Fatal(err)
		}
		if ok {
			if p.Op != op {
				h.t.Fatalf("operation %d instead of %d", p.Op, op)
			}
			return p
		}
		n, err := h.carrier.Read(h.reader.Space())
		if err != nil {
			h.t.Fatal(err)
		}
		h.reader.Filled(n)
	}
}

// connect hands the process a socket for port and returns the other end.
func (h *host) connect() *os.File {
	h.t.Helper()
	ours, theirs, err := sys.LocalPair(syscall.SOCK_STREAM)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := sys.SendFd(h.control, port, theirs); err != nil {
		h.t.Fatal(err)
	}
	sys.Close(theirs)
	file := os.NewFile(uintptr(ours), "mount")
	_ = file.SetDeadline(time.Now().Add(30 * time.Second))
	return file
}

func (h *host) listen() {
	h.send(wire.Packet{Type: wire.TypeControl, Op: wire.CtlListen, DstPort: port})
}

func (h *host) answer(op wire.Op, payload []byte) {
	h.send(wire.Packet{Type: wire.TypeStream, Op: op, SrcPort: port, DstPort: h.guest, BufAlloc: wire.Window, Payload: payload})
}

func TestASocketIsConnectedWithAPortOnceTheHostListens(t *testing.T) {
	h := serve(t)
	mount := h.connect()
	if _, err := mount.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	h.listen()
	h.guest = h.expect(wire.OpRequest).SrcPort
	h.answer(wire.OpResponse, nil)
	if p := h.expect(wire.OpRW); !bytes.Equal(p.Payload, []byte("question")) {
		t.Errorf("the host got %q", p.Payload)
	}
	h.answer(wire.OpRW, []byte("answer"))
	p := make([]byte, 100)
	if n, err := mount.Read(p); err != nil || string(p[:n]) != "answer" {
		t.Errorf("the mount got %q, %v", p[:n], err)
	}
	_ = mount.Close()
	h.expect(wire.OpShutdown)
	sys.Close(h.control)
	if err := <-h.ended; err != nil {
		t.Errorf("the process ended with %v when the agent was gone", err)
	}
}

func TestASocketEndsWhenTheHostRefusesOrEnds(t *testing.T) {
	h := serve(t)
	h.listen()
	for _, accepted := range []bool{false, true} {
		mount := h.connect()
		h.guest = h.expect(wire.OpRequest).SrcPort
		if accepted {
			h.answer(wire.OpResponse, nil)
		}
		h.answer(wire.OpRst, nil)
		if n, err := mount.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("accepted %v: read %d bytes, %v", accepted, n, err)
		}
	}
	_ = h.carrier.Close()
	if err := <-h.ended; err != nil {
		t.Errorf("the process ended with %v at the carrier's end", err)
	}
}

func TestTheProcessIsStartedWhenItIsNeededAndAgainWhenItHasEnded(t *testing.T) {
	k := &systest.Kernel{Child: sys.Child{PID: 5, Event: -1}, Fail: map[string]error{}}
	c := NewClient(k)
	for round := 1; round <= 2; round++ {
		// The child that the fake does not start has closed its end: only what is sent at once is not lost.
		if _, err := c.Connect(port); err == nil {
			t.Error("connected with a process that is not there")
		}
		if len(k.Spawned) != round || k.Spawned[0].Args[1] != Argument {
			t.Errorf("round %d: started %v", round, k.Spawned)
		}
	}
	k.Fail["spawn /proc/self/exe"] = syscall.ENOMEM
	if _, err := c.Connect(port); err != syscall.ENOMEM {
		t.Errorf("failed with %v", err)
	}
}
