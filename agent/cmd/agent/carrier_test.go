package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"utilityvm/agent/wire"
)

func TestAPacketCutAtEveryByte(t *testing.T) {
	h := connected(t)
	text := []byte(`{"ContainerId":"` + nullGUID + `","ProcessId":1}`)
	bridge := h.streams[bridgePort]
	for cut, whole := 0, 1; cut < whole; cut++ {
		id := h.nextID
		h.nextID++
		frame := wire.AppendFrame(nil, wire.WaitForProcess, id, func(b []byte) []byte { return append(b, text...) })
		bridge.sent += uint32(len(frame))
		packet := wire.AppendPacket(nil, &wire.Packet{Type: wire.TypeStream, Op: wire.OpRW, SrcPort: bridge.ours, DstPort: bridge.guest,
			BufAlloc: wire.Window, FwdCnt: bridge.told, Payload: frame}, wire.FromHost)
		whole = len(packet)
		h.raw(packet[:cut])
		if cut%8 == 0 {
			time.Sleep(time.Millisecond) // now and then the agent sees the first part alone
		}
		h.raw(packet[cut:])
		h.answer(id)
	}
}

func TestATransportResetBeginsAnew(t *testing.T) {
	h := connected(t)
	p := h.sh("cat >/dev/null; echo input ended; sleep 0.1; echo output broke; echo again")
	old := h.streams[bridgePort].guest
	h.begin(entropyPort, logPort, bridgePort)
	h.negotiate()
	if now := h.streams[bridgePort].guest; now == old {
		t.Errorf("source port %#x was used again", now)
	}
	// The program read the end of its input and cannot write any more. Nobody waited for it in this era.
	answer := h.call(wire.WaitForProcess, map[string]any{"ProcessId": p.pid, "TimeoutInMs": 10_000})
	if code, ended := answer["ExitCode"].(float64); !ended || code == 0 {
		t.Error(answer)
	}
	if p := h.sh("echo new era"); p.code() != 0 || p.out.data.String() != "new era\n" {
		t.Errorf("%q", p.out.data.String())
	}
}

func TestAResetInTheMiddleOfOutputIsAnswered(t *testing.T) {
	h := connected(t)
	p := h.spawn(parameters{"CommandArgs": []string{"yes"}})
	h.until("output", func() bool { return p.out.data.Len() > 1000 })
	nonce := []byte("0123456789abcdef")
	h.write(wire.Packet{Type: wire.TypeControl, Op: wire.CtlReset, Payload: nonce})
	ack := wire.AppendPacket(nil, &wire.Packet{Type: wire.TypeControl, Op: wire.CtlResetAck, Payload: nonce}, wire.FromGuest)
	var seen []byte
	piece := make([]byte, 65536)
	_ = h.conn.SetReadDeadline(time.Now().Add(patience))
	for !bytes.Contains(seen, ack) { // wherever it begins: a packet may have been cut off
		n, err := h.conn.Read(piece)
		if err != nil {
			t.Fatalf("%v after %d bytes", err, len(seen))
		}
		seen = append(seen, piece[:n]...)
	}
	if !bytes.HasSuffix(seen, ack) {
		t.Error("something follows the answer to the reset before the host listens")
	}
}

func TestQuiesceStopsTheAgentUntilTheHostSpeaks(t *testing.T) {
	h := connected(t)
	p := h.spawn(parameters{"CommandArgs": []string{"yes"}})
	h.until("output", func() bool { return p.out.data.Len() > 1000 })
	p.out.stalled = true // a credit update would end the silence
	h.write(wire.Packet{Type: wire.TypeControl, Op: wire.CtlQuiesce})
	h.until("silence", func() bool { return h.control[len(h.control)-1].Op == wire.CtlQuiesced })
	before := h.packets
	h.silence(200 * time.Millisecond)
	if h.packets != before {
		t.Errorf("%d packets after QUIESCED", h.packets-before)
	}
	p.out.stalled = false
	h.op(p.out, wire.OpCreditUpdate, 0)
	more := p.out.data.Len()
	h.until("output again", func() bool { return p.out.data.Len() > more })
	p.signal(9)
}

func TestAnswersMadeInSilenceComeAfterIt(t *testing.T) {
	h := connected(t)
	p := h.sh("sleep 0.1; exit 6") // ends while the host wants silence
	h.write(wire.Packet{Type: wire.TypeControl, Op: wire.CtlQuiesce})
	h.until("silence", func() bool { return h.control[len(h.control)-1].Op == wire.CtlQuiesced })
	before := h.packets
	h.silence(300 * time.Millisecond)
	if h.packets != before {
		t.Errorf("%d packets after QUIESCED", h.packets-before)
	}
	h.op(h.streams[bridgePort], wire.OpCreditRequest, 0)
	if code := p.code(); code != 6 {
		t.Errorf("exit %d", code)
	}
}

// exits waits for the agent's end and returns its status and what it said.
func (h *host) exits() (int, string) {
	h.t.Helper()
	h.silence(patience)
	_ = h.agent.Wait()
	return h.agent.ProcessState.ExitCode(), h.stderr.String()
}

func TestABrokenCarrierEndsTheAgent(t *testing.T) {
	long := wire.AppendPacket(nil, &wire.Packet{Type: wire.TypeStream, Op: wire.OpRst}, wire.FromHost)
	copy(long[24:28], "\xff\xff\xff\xff")
	for name, stream := range map[string][]byte{
		"rubbish":              bytes.Repeat([]byte{0xa5}, 100),
		"a guest's packet":     wire.AppendPacket(nil, &wire.Packet{Type: wire.TypeControl, Op: wire.CtlQuiesced}, wire.FromHost),
		"too long a payload":   long,
		"questions unanswered": nil,
	} {
		t.Run(name, func(t *testing.T) {
			h := connected(t)
			if stream == nil {
				h.flood()
			} else {
				h.raw(stream)
			}
			if code, text := h.exits(); code != 1 || !strings.HasPrefix(text, "utilityvm: guest connection") || strings.Contains(text, "goroutine") {
				t.Errorf("status %d: %.2000s", code, text)
			}
		})
	}
}

// flood asks for credit for ever and never reads the answers.
func (h *host) flood() {
	bridge := h.streams[bridgePort]
	one := wire.AppendPacket(nil, &wire.Packet{Type: wire.TypeStream, Op: wire.OpCreditRequest, SrcPort: bridge.ours, DstPort: bridge.guest,
		BufAlloc: wire.Window}, wire.FromHost)
	many := bytes.Repeat(one, 1000)
	for {
		_ = h.conn.SetWriteDeadline(time.Now().Add(patience))
		if _, err := h.conn.Write(many); err != nil {
			return
		}
	}
}

func TestEntropyComesFirst(t *testing.T) {
	h := start(t)
	h.begin(logPort, bridgePort)
	h.silence(100 * time.Millisecond)
	if len(h.streams) != 0 {
		t.Error("the agent dialled before it had entropy")
	}
	h.write(wire.Packet{Type: wire.TypeControl, Op: wire.CtlListen, DstPort: entropyPort})
	h.negotiate()
	if h.streams[logPort] == nil {
		t.Error("no log")
	}
}

func TestABootWithoutEntropyFails(t *testing.T) {
	h := start(t)
	h.refuse[entropyPort] = true
	h.begin(entropyPort, logPort, bridgePort)
	if code, text := h.exits(); code != 1 || text != "utilityvm: entropy: guest connection: the host refused the connection\n" {
		t.Errorf("status %d: %s", code, text)
	}
}

func TestAPacketForNoStreamIsAnsweredWithRst(t *testing.T) {
	h := connected(t)
	s := &stream{guest: 77, ours: 88}
	h.streams[88] = s
	h.op(s, wire.OpCreditUpdate, 0)
	h.until("RST", func() bool { return s.gone })
	s = &stream{guest: 78, ours: 88}
	h.streams[88] = s
	h.op(s, wire.OpRst, 0) // is never answered
	h.silence(50 * time.Millisecond)
	if s.gone {
		t.Error("RST was answered")
	}
}

func TestTheEndOfTheCarrierEndsTheAgentQuietly(t *testing.T) {
	h := connected(t)
	_ = h.conn.Close()
	_ = h.agent.Wait()
	if code := h.agent.ProcessState.ExitCode(); code != 0 || h.stderr.Len() != 0 {
		t.Errorf("status %d: %s", code, h.stderr.String())
	}
}

func TestWrongArgumentsAreNamed(t *testing.T) {
	h := start(t, "/bin/other")
	if code, text := h.exits(); code != 1 || !strings.Contains(text, "/bin/other") {
		t.Errorf("status %d: %s", code, text)
	}
}
