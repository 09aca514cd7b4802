package wire

import "testing"

func opened(t *testing.T, alloc uint32) *Conn {
	t.Helper()
	c := Dial(firstTestPort, 5)
	if event, answer := c.Receive(&Packet{Op: OpResponse, BufAlloc: alloc}); event != EvOpened || answer != 0 {
		t.Fatalf("%v %v", event, answer)
	}
	return &c
}

func TestNothingMayBeSentBeforeTheAnswer(t *testing.T) {
	c := Dial(firstTestPort, 5)
	if p := c.Packet(OpRequest); p.SrcPort != firstTestPort || p.DstPort != 5 || p.BufAlloc != Window {
		t.Errorf("%+v", p)
	}
	if c.Room() != 0 {
		t.Error("room while dialling")
	}
	if _, ok := c.Shutdown(ShutBoth); ok {
		t.Error("shutdown while dialling")
	}
}

func TestCreditLimitsWhatIsUnderWay(t *testing.T) {
	c := opened(t, 1000)
	c.Sent(600)
	if c.Room() != 400 {
		t.Errorf("room %d", c.Room())
	}
	c.Sent(400)
	if c.Room() != 0 {
		t.Errorf("room %d", c.Room())
	}
	if event, _ := c.Receive(&Packet{Op: OpCreditUpdate, BufAlloc: 1000, FwdCnt: 300}); event != EvCredit || c.Room() != 300 {
		t.Errorf("%v, room %d", event, c.Room())
	}
	c.Receive(&Packet{Op: OpCreditUpdate, BufAlloc: 10, FwdCnt: 300}) // the peer has made its buffer smaller
	if c.Room() != 0 {
		t.Errorf("room %d", c.Room())
	}
}

func TestCountsWrap(t *testing.T) {
	c := opened(t, 1000)
	c.sent, c.peerTaken = 0xffffffff, 0xffffff00
	if c.Room() != 1000-255 {
		t.Errorf("room %d", c.Room())
	}
	c.Sent(500)
	if c.Room() != 1000-755 {
		t.Errorf("room %d", c.Room())
	}
}

func TestThePeerHearsOfCreditWhenHalfOfItIsUsed(t *testing.T) {
	c := opened(t, 0)
	c.Receive(&Packet{Op: OpRW, Payload: make([]byte, Window/2)})
	if c.Taken(Window / 2) {
		t.Error("told at half")
	}
	c.Receive(&Packet{Op: OpRW, Payload: make([]byte, 1)})
	if !c.Taken(1) {
		t.Error("not told below half")
	}
	if p := c.Packet(OpCreditUpdate); p.FwdCnt != Window/2+1 {
		t.Errorf("%+v", p)
	}
	if c.Taken(0) {
		t.Error("told twice")
	}
}

func TestMoreThanTheWindowResets(t *testing.T) {
	c := opened(t, 0)
	for i := 0; i < 4; i++ {
		if event, _ := c.Receive(&Packet{Op: OpRW, Payload: make([]byte, Window/4)}); event&EvData == 0 {
			t.Fatalf("packet %d: %v", i, event)
		}
	}
	if event, answer := c.Receive(&Packet{Op: OpRW, Payload: make([]byte, 1)}); event != EvEnded || answer != OpRst {
		t.Errorf("%v %v", event, answer)
	}
}

// What may come in which state, all of it.
func TestEveryOperationInEveryState(t *testing.T) {
	type result struct {
		event  Event
		answer Op
	}
	reset := result{EvEnded, OpRst}
	dialling := map[Op]result{
		OpRequest: reset, OpResponse: {EvOpened, 0}, OpRst: {EvEnded, 0}, OpShutdown: reset, OpRW: reset, OpCreditUpdate: reset, OpCreditRequest: reset,
	}
	open := map[Op]result{
		OpRequest: reset, OpResponse: reset, OpRst: {EvEnded, 0}, OpShutdown: {EvShut | EvCredit, 0}, OpRW: {EvData | EvCredit, 0},
		OpCreditUpdate: {EvCredit, 0}, OpCreditRequest: {EvCredit, OpCreditUpdate},
	}
	shutByUs := map[Op]result{
		OpRequest: reset, OpResponse: reset, OpRst: {EvEnded, 0}, OpShutdown: {EvShut | EvEnded, OpRst}, OpRW: {EvCredit, 0},
		OpCreditUpdate: {EvCredit, 0}, OpCreditRequest: {EvCredit, OpCreditUpdate},
	}
	shutByPeer := map[Op]result{
		OpRequest: reset, OpResponse: reset, OpRst: {EvEnded, 0}, OpShutdown: {EvShut | EvCredit, 0}, OpRW: reset,
		OpCreditUpdate: {EvCredit, 0}, OpCreditRequest: {EvCredit, OpCreditUpdate},
	}
	for name, state := range map[string]struct {
		make  func() *Conn
		table map[Op]result
	}{
		"dialling":     {func() *Conn { c := Dial(firstTestPort, 5); return &c }, dialling},
		"open":         {func() *Conn { return opened(t, 0) }, open},
		"shut by us":   {func() *Conn { c := opened(t, 0); c.Shutdown(ShutBoth); return c }, shutByUs},
		"shut by peer": {func() *Conn { c := opened(t, 0); c.Receive(&Packet{Op: OpShutdown, Flags: ShutSend}); return c }, shutByPeer},
	} {
		if len(state.table) != int(OpCreditRequest) {
			t.Errorf("%s: %d operations", name, len(state.table))
		}
		for op, want := range state.table {
			p := &Packet{Op: op, Flags: ShutSend}
			if op == OpRW {
				p.Payload = []byte("x")
			}
			c := state.make()
			if event, answer := c.Receive(p); (result{event, answer}) != want || (event&EvEnded != 0) != (c.State == Closed) {
				t.Errorf("%s, operation %d: %v %v, want %+v", name, op, event, answer, want)
			}
		}
	}
}

func TestAShutdownIsSaidOnceAndAddsUp(t *testing.T) {
	c := opened(t, 0)
	if p, ok := c.Shutdown(ShutSend); !ok || p.Flags != ShutSend {
		t.Errorf("%+v %v", p, ok)
	}
	if _, ok := c.Shutdown(ShutSend); ok {
		t.Error("said twice")
	}
	if p, ok := c.Shutdown(ShutReceive); !ok || p.Flags != ShutBoth {
		t.Errorf("%+v %v", p, ok)
	}
	if c.Room() != 0 {
		t.Error("room after shutdown")
	}
}

func TestAPeerThatTakesNoMoreLeavesNoRoom(t *testing.T) {
	c := opened(t, 1000)
	c.Receive(&Packet{Op: OpShutdown, Flags: ShutReceive, BufAlloc: 1000})
	if c.Room() != 0 {
		t.Errorf("room %d", c.Room())
	}
}
