package wire

import "testing"

// near is close to where the counts of bytes start again at 0.
const near = 1<<32 - 1000

func TestReceivedBytesAreCountedAcrossTheWrap(t *testing.T) {
	c := opened(t, 0)
	c.received, c.taken, c.told = near, near, near
	if event, _ := c.Receive(&Packet{Op: OpRW, Payload: make([]byte, MaxPayload)}); event&EvData == 0 || c.Unread() != MaxPayload {
		t.Fatalf("%v, %d unread", event, c.Unread())
	}
	for i := 1; i < Window/MaxPayload; i++ {
		c.Receive(&Packet{Op: OpRW, Payload: make([]byte, MaxPayload)})
	}
	if c.State != Open || c.Unread() != Window {
		t.Fatalf("state %v, %d unread", c.State, c.Unread())
	}
	if !c.Taken(2000) {
		t.Error("the peer must hear of credit")
	}
	if p := c.Packet(OpCreditUpdate); p.FwdCnt != 1000 || p.BufAlloc != Window {
		t.Errorf("%+v", p)
	}
	if event, answer := c.Receive(&Packet{Op: OpRW, Payload: make([]byte, 2001)}); event != EvEnded || answer != OpRst {
		t.Errorf("a byte over the window: %v %v", event, answer)
	}
}

func TestALongTransferKeepsToTheCreditOfBothSides(t *testing.T) {
	sender, reader := opened(t, Window), opened(t, Window)
	sender.sent, sender.peerTaken = near, near
	reader.received, reader.taken, reader.told = near, near, near
	payload := make([]byte, MaxPayload)
	moved, updates := 0, 0
	for moved < 16*Window {
		n := sender.Room()
		if n > len(payload) {
			n = len(payload)
		}
		if n == 0 {
			t.Fatalf("stuck after %d bytes with %d unread", moved, reader.Unread())
		}
		sender.Sent(n)
		if event, answer := reader.Receive(&Packet{Op: OpRW, Payload: payload[:n]}); event&EvData == 0 || answer != 0 {
			t.Fatalf("after %d bytes: %v %v", moved, event, answer)
		}
		moved += n
		if reader.Taken(reader.Unread()) {
			update := reader.Packet(OpCreditUpdate)
			sender.Receive(&update)
			updates++
		}
	}
	if updates == 0 || updates > 2*moved/Window+1 {
		t.Errorf("%d updates of credit for %d windows", updates, moved/Window)
	}
}

func TestDataThatWasUnderWayWhenWeStoppedReadingIsDropped(t *testing.T) {
	c := opened(t, 0)
	c.Shutdown(ShutReceive)
	if event, answer := c.Receive(&Packet{Op: OpRW, Payload: make([]byte, 10)}); event != EvCredit || answer != 0 || c.Unread() != 0 {
		t.Errorf("%v %v, %d unread", event, answer, c.Unread())
	}
}

func TestEveryPacketButAResetTellsTheCredit(t *testing.T) {
	c := opened(t, 0)
	c.Receive(&Packet{Op: OpRW, Payload: make([]byte, 10)})
	c.Taken(7)
	for op := OpRequest; op <= OpCreditRequest; op++ {
		want := Packet{Type: TypeStream, Op: op, SrcPort: firstTestPort, DstPort: 5, BufAlloc: Window, FwdCnt: 7}
		if op == OpRst {
			want.BufAlloc, want.FwdCnt = 0, 0
		}
		p := c.Packet(op)
		if p.Type != want.Type || p.Op != want.Op || p.SrcPort != want.SrcPort || p.DstPort != want.DstPort || p.BufAlloc != want.BufAlloc ||
			p.FwdCnt != want.FwdCnt {
			t.Errorf("%+v, want %+v", p, want)
		}
	}
}
