package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"utilityvm/agent/wire"
)

// patience is how long a test waits for the agent before it gives up.
const patience = 30 * time.Second

const (
	entropyPort = 1
	logPort     = 109
	bridgePort  = 0x40000000
	nullGUID    = wire.NullGUID
)

// TestMain makes the test binary the agent itself when a test starts it as such.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_AS_AGENT") != "" {
		_ = os.Unsetenv("TEST_AS_AGENT")
		// As PID 1 does, the agent under test inherits orphans.
		_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, 36 /* PR_SET_CHILD_SUBREAPER */, 1, 0)
		main()
	}
	os.Exit(m.Run())
}

// stream is a connection that the guest dialled.
type stream struct {
	guest     uint32 // its port
	ours      uint32
	data      bytes.Buffer
	received  uint32
	told      uint32
	sent      uint32
	peerAlloc uint32
	peerTaken uint32
	eof       bool // the guest sends no more
	deafGuest bool // the guest receives no more
	gone      bool
	stalled   bool // nothing is taken: the credit stays used
	closed    bool
}

func (s *stream) room() int { return int(s.peerAlloc - (s.sent - s.peerTaken)) }

// host drives an agent as the host of a VM does: one packet after another, with nothing in the background.
type host struct {
	t       *testing.T
	conn    net.Conn
	agent   *exec.Cmd
	stderr  bytes.Buffer
	reader  *wire.PacketReader
	streams map[uint32]*stream // the last one on each of our ports
	refuse  map[uint32]bool
	slow    map[uint32]bool // dials to which are not answered yet
	stall   map[uint32]bool
	keep    map[uint32]bool // streams that the host does not close at their end
	control []wire.Packet
	frames  wire.FrameReader
	answers map[uint64]map[string]any
	kinds   map[uint64]wire.MessageType
	nextID  uint64
	next    uint32
	packets int
	mute    bool // nothing is written
}

var defaultArgs = []string{"-e", "1", "/bin/vsockexec", "-e", "109", "/bin/gcs", "-v4", "-log-format", "json", "-loglevel", "debug"}

// start runs an agent on one end of a socket pair.
func start(t *testing.T, args ...string) *host {
	t.Helper()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "host"), os.NewFile(uintptr(pair[1]), "agent")
	h := &host{t: t, reader: wire.NewPacketReader(wire.FromGuest), streams: map[uint32]*stream{}, refuse: map[uint32]bool{}, slow: map[uint32]bool{},
		stall: map[uint32]bool{}, keep: map[uint32]bool{}, answers: map[uint64]map[string]any{}, kinds: map[uint64]wire.MessageType{}, next: bridgePort + 1}
	if h.conn, err = net.FileConn(ours); err != nil {
		t.Fatal(err)
	}
	if len(args) == 0 {
		args = defaultArgs
	}
	h.agent = exec.Command(os.Args[0], append([]string{"-serve-fd", "3"}, args...)...)
	h.agent.ExtraFiles, h.agent.Stderr = []*os.File{theirs}, &h.stderr
	h.agent.Env = append(os.Environ(), "TEST_AS_AGENT=1")
	if err := h.agent.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = ours.Close(), theirs.Close()
	t.Cleanup(func() {
		_ = h.conn.Close()
		_ = h.agent.Process.Kill()
		_ = h.agent.Wait()
		if t.Failed() {
			t.Logf("the agent's stderr: %s", h.stderr.String())
		}
	})
	return h
}

// connected starts an agent, plays the boot and negotiates.
func connected(t *testing.T, args ...string) *host {
	t.Helper()
	h := start(t, args...)
	h.begin(entropyPort, logPort, bridgePort)
	h.negotiate()
	return h
}

// begin resets the transport and listens on ports; the agent's dials are answered.
func (h *host) begin(ports ...uint32) {
	h.t.Helper()
	nonce := []byte(fmt.Sprintf("nonce %-10d", time.Now().UnixNano()%1e9))
	h.write(wire.Packet{Type: wire.TypeControl, Op: wire.CtlReset, Payload: nonce})
	h.until("the answer to the reset", func() bool {
		for _, p := range h.control {
			if p.Op == wire.CtlResetAck && bytes.Equal(p.Payload, nonce) {
				return true
			}
		}
		return false
	})
	h.streams, h.frames = map[uint32]*stream{}, wire.FrameReader{}
	for _, port := range ports {
		h.write(wire.Packet{Type: wire.TypeControl, Op: wire.CtlListen, DstPort: port})
	}
}

func (h *host) negotiate() {
	h.t.Helper()
	h.until("the bridge", func() bool { return h.streams[bridgePort] != nil })
	answer := h.call(wire.NegotiateProtocol, map[string]any{"ContainerId": "", "MinimumVersion": 4, "MaximumVersion": 4})
	if answer["Version"] != 4.0 {
		h.t.Fatalf("negotiated %v", answer)
	}
	if told := answer["BootTimes"]; told != nil {
		h.t.Fatalf("an agent that did not boot a machine tells when it did: %v", told)
	}
}

func (h *host) write(p wire.Packet) {
	h.t.Helper()
	h.raw(wire.AppendPacket(nil, &p, wire.FromHost))
}

func (h *host) raw(b []byte) {
	h.t.Helper()
	if h.mute {
		return
	}
	_ = h.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := h.conn.Write(b); err != nil {
		h.t.Fatalf("write to the agent: %v", err)
	}
}

// until handles packets from the agent until done.
func (h *host) until(what string, done func() bool) {
	h.t.Helper()
	deadline := time.Now().Add(patience)
	for !done() {
		if !h.step(deadline) {
			h.t.Fatalf("waiting for %s: the agent is silent or gone", what)
		}
	}
}

// silence handles packets for a while.
func (h *host) silence(d time.Duration) {
	deadline := time.Now().Add(d)
	for h.step(deadline) {
	}
}

func (h *host) step(deadline time.Time) bool {
	h.t.Helper()
	_ = h.conn.SetReadDeadline(deadline)
	n, err := h.conn.Read(h.reader.Space())
	if err != nil {
		return false
	}
	h.reader.Filled(n)
	for {
		p, ok, err := h.reader.Next()
		if err != nil {
			h.t.Fatalf("the agent sent: %v", err)
		}
		if !ok {
			return true
		}
		h.packets++
		h.packet(p)
	}
}

func (h *host) packet(p wire.Packet) {
	h.t.Helper()
	if p.Type == wire.TypeControl {
		p.Payload = append([]byte(nil), p.Payload...)
		h.control = append(h.control, p)
		return
	}
	s := h.streams[p.DstPort]
	if p.Op == wire.OpRequest {
		h.dialled(p)
		return
	}
	if s == nil || s.guest != p.SrcPort {
		if p.Op != wire.OpRst {
			h.t.Fatalf("operation %d on a stream that nobody dialled", p.Op)
		}
		return
	}
	if p.Op != wire.OpRst {
		s.peerAlloc, s.peerTaken = p.BufAlloc, p.FwdCnt
	}
	switch p.Op {
	case wire.OpRst:
		s.gone, s.eof = true, true
	case wire.OpShutdown:
		s.eof = s.eof || p.Flags&wire.ShutSend != 0
		s.deafGuest = s.deafGuest || p.Flags&wire.ShutReceive != 0
		if s.eof && !h.keep[s.ours] {
			h.close(s)
		}
	case wire.OpRW:
		h.received(s, p.Payload)
	case wire.OpCreditRequest:
		h.op(s, wire.OpCreditUpdate, 0)
	}
}

func (h *host) dialled(p wire.Packet) {
	s := &stream{guest: p.SrcPort, ours: p.DstPort, peerAlloc: p.BufAlloc, stalled: h.stall[p.DstPort]}
	if h.refuse[p.DstPort] {
		h.op(s, wire.OpRst, 0)
		return
	}
	h.streams[p.DstPort] = s
	if h.slow[p.DstPort] {
		return
	}
	h.op(s, wire.OpResponse, 0)
	if p.DstPort == entropyPort {
		h.send(s, make([]byte, 512))
		h.op(s, wire.OpShutdown, wire.ShutSend)
	}
}

func (h *host) received(s *stream, payload []byte) {
	h.t.Helper()
	s.received += uint32(len(payload))
	if s.received-s.told > wire.Window {
		h.t.Fatalf("the agent sent %d bytes beyond its credit", s.received-s.told-wire.Window)
	}
	if s.ours == bridgePort {
		if err := h.frames.Feed(payload, h.frame); err != nil {
			h.t.Fatal(err)
		}
	} else {
		s.data.Write(payload)
	}
	if !s.stalled && s.received-s.told > wire.Window/2 {
		h.op(s, wire.OpCreditUpdate, 0)
	}
}

func (h *host) frame(f wire.Frame) {
	h.t.Helper()
	answer := map[string]any{}
	if err := json.Unmarshal(f.Body, &answer); err != nil {
		h.t.Fatalf("%s: %v", f.Body, err)
	}
	if h.answers[f.ID] != nil {
		h.t.Fatalf("request %d was answered twice", f.ID)
	}
	h.answers[f.ID], h.kinds[f.ID] = answer, f.Type
}

func (h *host) op(s *stream, op wire.Op, flags uint32) {
	h.t.Helper()
	taken := s.received
	if s.stalled {
		taken = 0
	} else {
		s.told = taken
	}
	h.write(wire.Packet{Type: wire.TypeStream, Op: op, SrcPort: s.ours, DstPort: s.guest, Flags: flags, BufAlloc: wire.Window, FwdCnt: taken})
}

// close ends the host's part of a stream.
func (h *host) close(s *stream) {
	if !s.closed {
		s.closed = true
		h.op(s, wire.OpShutdown, wire.ShutBoth)
	}
}

// send sends data as the credit allows, until all is sent or the guest wants no more.
func (h *host) send(s *stream, data []byte) {
	h.t.Helper()
	for len(data) > 0 && !s.deafGuest && !s.gone {
		n := s.room()
		if n > wire.MaxPayload {
			n = wire.MaxPayload
		}
		if n > len(data) {
			n = len(data)
		}
		if n <= 0 {
			h.until("credit", func() bool { return s.room() > 0 || s.deafGuest || s.gone })
			continue
		}
		h.write(wire.Packet{Type: wire.TypeStream, Op: wire.OpRW, SrcPort: s.ours, DstPort: s.guest, BufAlloc: wire.Window, FwdCnt: s.told, Payload: data[:n]})
		s.sent += uint32(n)
		data = data[n:]
	}
}

// post sends a request and returns its id.
func (h *host) post(kind wire.MessageType, body map[string]any) uint64 {
	h.t.Helper()
	if _, ok := body["ContainerId"]; !ok {
		body["ContainerId"] = nullGUID
	}
	text, err := json.Marshal(body)
	if err != nil {
		h.t.Fatal(err)
	}
	return h.postRaw(kind, append(text, '\n'))
}

func (h *host) postRaw(kind wire.MessageType, text []byte) uint64 {
	h.t.Helper()
	id := h.nextID
	h.nextID++
	h.send(h.streams[bridgePort], wire.AppendFrame(nil, kind, id, func(b []byte) []byte { return append(b, text...) }))
	return id
}

// answer waits for the response to request id.
func (h *host) answer(id uint64) map[string]any {
	h.t.Helper()
	h.until("an answer", func() bool { return h.answers[id] != nil })
	return h.answers[id]
}

func (h *host) call(kind wire.MessageType, body map[string]any) map[string]any {
	h.t.Helper()
	id := h.post(kind, body)
	answer := h.answer(id)
	if h.kinds[id] != kind.Response() {
		h.t.Fatalf("%#x was answered by %#x", kind, h.kinds[id])
	}
	return answer
}

// result returns the HRESULT of a response.
func result(answer map[string]any) wire.HResult {
	n, _ := answer["Result"].(float64)
	return wire.HResult(int32(n))
}

// refused calls and returns the HRESULT and the text of the failure.
func (h *host) refused(kind wire.MessageType, body map[string]any) (wire.HResult, string) {
	h.t.Helper()
	answer := h.call(kind, body)
	code := result(answer)
	if code == 0 {
		h.t.Fatalf("%#x succeeded: %v", kind, answer)
	}
	records, _ := answer["ErrorRecords"].([]any)
	if len(records) != 1 {
		h.t.Fatalf("%d error records: %v", len(records), answer)
	}
	if record := records[0].(map[string]any); record["Message"] != answer["ErrorMessage"] || record["ModuleName"] != "gcs" {
		h.t.Fatalf("error record %v", record)
	}
	return code, answer["ErrorMessage"].(string)
}

// process is one that was started in the guest.
type process struct {
	h           *host
	pid         float64
	in, out, er *stream
	wait        uint64
}

// parameters of a process; the zero value has all three streams.
type parameters map[string]any

// request makes the body of ExecuteProcess and listens on the ports that it names.
func (h *host) request(p parameters) (map[string]any, map[string]uint32) {
	h.t.Helper()
	ports, relay := map[string]uint32{}, map[string]any{}
	for _, name := range []string{"StdIn", "StdOut", "StdErr"} {
		if _, said := p["Create"+name+"Pipe"]; !said {
			p["Create"+name+"Pipe"] = true
		}
		if p["Create"+name+"Pipe"] == true {
			ports[name], relay[name] = h.next, h.next
			h.write(wire.Packet{Type: wire.TypeControl, Op: wire.CtlListen, DstPort: h.next, Flags: wire.Once})
			h.next++
		}
	}
	text, err := json.Marshal(p)
	if err != nil {
		h.t.Fatal(err)
	}
	return map[string]any{"Settings": map[string]any{"ProcessParameters": string(text), "VsockStdioRelaySettings": relay}}, ports
}

// spawn starts a process and begins to wait for it.
func (h *host) spawn(p parameters) *process {
	h.t.Helper()
	body, ports := h.request(p)
	answer := h.call(wire.ExecuteProcess, body)
	if answer["Result"] != 0.0 {
		h.t.Fatalf("%v: %v", p, answer)
	}
	pid, _ := answer["ProcessId"].(float64)
	return &process{h, pid, h.streams[ports["StdIn"]], h.streams[ports["StdOut"]], h.streams[ports["StdErr"]],
		h.post(wire.WaitForProcess, map[string]any{"ProcessId": pid, "TimeoutInMs": uint32(wire.NoTimeout)})}
}

// sh runs a shell command.
func (h *host) sh(command string) *process {
	h.t.Helper()
	return h.spawn(parameters{"CommandArgs": []string{"/bin/sh", "-c", command}, "Environment": map[string]string{"PATH": "/usr/bin:/bin"}})
}

// code waits for the process and the end of its output.
func (p *process) code() int {
	p.h.t.Helper()
	for _, s := range []*stream{p.out, p.er} {
		if s != nil {
			p.h.until("the end of output", func() bool { return s.eof })
		}
	}
	answer := p.h.answer(p.wait)
	code, ok := answer["ExitCode"].(float64)
	if !ok {
		p.h.t.Fatalf("waiting for %v: %v", p.pid, answer)
	}
	return int(code)
}

func (p *process) eof() { p.h.op(p.in, wire.OpShutdown, wire.ShutSend) }

func (p *process) signal(n int) map[string]any {
	p.h.t.Helper()
	return p.h.call(wire.SignalProcess, map[string]any{"ProcessId": p.pid, "Options": map[string]any{"Signal": n}})
}
