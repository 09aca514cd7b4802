package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"utilityvm/agent/wire"
)

// unread is more than a pipe holds, and less than what the credit allows beside that, in bytes.
const unread = 1024*1024 + wire.Window/2

// another lets the agent go on as after a snapshot: silent, and then with a host that begins anew.
func (h *host) another() {
	h.t.Helper()
	h.write(wire.Packet{Type: wire.TypeControl, Op: wire.CtlQuiesce})
	h.mute = true // as a host is that wants silence
	h.until("silence", func() bool {
		return len(h.control) > 0 && h.control[len(h.control)-1].Op == wire.CtlQuiesced
	})
	h.mute = false
	h.begin(entropyPort, logPort, bridgePort)
	h.negotiate()
}

// attachment makes the body of AttachProcess for the streams of these names and listens on their ports.
func (h *host) attachment(pid float64, names ...string) (map[string]any, map[string]uint32) {
	ports, relay := map[string]uint32{}, map[string]any{}
	for _, name := range names {
		ports[name], relay[name] = h.next, h.next
		h.write(wire.Packet{Type: wire.TypeControl, Op: wire.CtlListen, DstPort: h.next, Flags: wire.Once})
		h.next++
	}
	return map[string]any{"ProcessId": pid, "VsockStdioRelaySettings": relay}, ports
}

// attach takes the streams of these names of a process that another host has started.
func (h *host) attach(pid float64, names ...string) (*process, map[string]any) {
	h.t.Helper()
	body, ports := h.attachment(pid, names...)
	answer := h.call(wire.AttachProcess, body)
	state, ok := answer["ProcessState"].(map[string]any)
	if !ok {
		h.t.Fatalf("attaching: %v", answer)
	}
	stream := func(name string) *stream {
		if ports[name] == 0 {
			return nil
		}
		return h.streams[ports[name]]
	}
	return &process{h, pid, stream("StdIn"), stream("StdOut"), stream("StdErr"),
		h.post(wire.WaitForProcess, map[string]any{"ProcessId": pid, "TimeoutInMs": uint32(wire.NoTimeout)})}, state
}

func TestAProcessIsAttachedByTheHostOfAClone(t *testing.T) {
	h := connected(t)
	p := h.sh("while read x; do echo $x; echo $x >&2; done; exit 7")
	h.send(p.in, []byte("one\n"))
	h.until("an answer", func() bool { return p.out.data.String() == "one\n" && p.er.data.String() == "one\n" })
	h.another()
	p, state := h.attach(p.pid, "StdIn", "StdOut", "StdErr")
	if state["Terminal"] != false || state["Ended"] != false {
		t.Errorf("%v", state)
	}
	h.send(p.in, []byte("two\n"))
	p.eof()
	if code := p.code(); code != 7 || p.out.data.String() != "two\n" || p.er.data.String() != "two\n" {
		t.Errorf("%d %q %q", code, p.out.data.String(), p.er.data.String())
	}
}

func TestOutputUnderWayAtASnapshotIsNeitherLostNorDoubled(t *testing.T) {
	h := connected(t)
	p := h.sh("seq 1 400000; exit 3")
	h.until("some of it", func() bool { return p.out.data.Len() > 1000 })
	first := p.out
	h.another()
	p, _ = h.attach(p.pid, "StdOut", "StdErr")
	code := p.code()
	var want bytes.Buffer
	for i := 1; i <= 400000; i++ {
		fmt.Fprintf(&want, "%d\n", i)
	}
	if got := first.data.String() + p.out.data.String(); code != 3 || got != want.String() {
		t.Errorf("exit %d; %d and %d bytes, %d wanted", code, first.data.Len(), p.out.data.Len(), want.Len())
	}
	if first.data.Len() == want.Len() {
		t.Error("nothing was under way")
	}
}

// catLater is a program that reads nothing before it gets a signal, and then gives back what it reads.
const catLater = "trap 'exec cat' USR1; echo ready >&2; while :; do sleep 0.01; done"

func (h *host) catLater() *process {
	p := h.sh(catLater)
	h.until("its trap", func() bool { return p.er.data.String() == "ready\n" })
	return p
}

func TestInputThatWasNotReadBeforeASnapshotIsReadBeforeWhatFollows(t *testing.T) {
	h := connected(t)
	p := h.catLater()
	data := []byte(strings.Repeat("0123456789abcdef", unread/16))
	h.send(p.in, data)
	h.another()
	p, _ = h.attach(p.pid, "StdIn", "StdOut", "StdErr")
	h.send(p.in, []byte("what follows"))
	p.eof()
	p.signal(10)
	if code := p.code(); code != 0 || p.out.data.String() != string(data)+"what follows" {
		t.Errorf("%d, %d bytes", code, p.out.data.Len())
	}
}

func TestInputThatHadEndedBeforeASnapshotEndsAfterWhatWasLeft(t *testing.T) {
	h := connected(t)
	p := h.catLater()
	data := make([]byte, unread)
	h.send(p.in, data)
	p.eof()
	h.another()
	p, _ = h.attach(p.pid, "StdIn", "StdOut", "StdErr")
	p.signal(10)
	if code := p.code(); code != 0 || p.out.data.Len() != unread {
		t.Errorf("%d, %d bytes", code, p.out.data.Len())
	}
	h.until("the end of stdin", func() bool { return p.in.deafGuest || p.in.gone })
}

func TestATerminalIsAttachedByTheHostOfAClone(t *testing.T) {
	h := connected(t)
	p := h.spawn(parameters{"CommandArgs": []string{"/bin/sh", "-c", "stty -echo; echo ready; while read x; do echo $x; done; exit 5"},
		"Environment": map[string]string{"PATH": "/usr/bin:/bin"}, "EmulateConsole": true, "CreateStdErrPipe": false, "ConsoleSize": []int{24, 80}})
	h.until("its beginning", func() bool { return strings.Contains(p.out.data.String(), "ready") })
	h.another()
	p, state := h.attach(p.pid, "StdIn", "StdOut", "StdErr")
	if state["Terminal"] != true || p.er != nil {
		t.Errorf("%v %v", state, p.er)
	}
	h.send(p.in, []byte("two\n\x04"))
	if answer := h.call(wire.ResizeConsole, map[string]any{"ProcessId": p.pid, "Height": 30, "Width": 90}); answer["Result"] != 0.0 {
		t.Errorf("%v", answer)
	}
	if code := p.code(); code != 5 || p.out.data.String() != "two\r\n" {
		t.Errorf("%d %q", code, p.out.data.String())
	}
}

func TestAProcessThatEndedSinceASnapshotIsAttachedWithItsOutputAndItsCode(t *testing.T) {
	h := connected(t)
	p := h.sh("read x; echo $x; exit 9")
	h.send(p.in, []byte("half"))
	h.another()
	pid := p.pid
	h.call(wire.SignalProcess, map[string]any{"ProcessId": pid, "Options": map[string]any{"Signal": 15}})
	for range []int{1, 2} { // it is told, and kept
		if answer := h.call(wire.WaitForProcess, map[string]any{"ProcessId": pid, "TimeoutInMs": uint32(wire.NoTimeout)}); answer["ExitCode"] != 143.0 {
			t.Fatalf("%v", answer)
		}
	}
	p, state := h.attach(pid, "StdIn", "StdOut", "StdErr")
	if state["Ended"] != true || state["ExitCode"] != 143.0 {
		t.Errorf("%v", state)
	}
	if code := p.code(); code != 143 {
		t.Error(code)
	}
	if code, _ := h.refused(wire.AttachProcess, map[string]any{"ProcessId": pid}); code != wire.NotFound {
		t.Errorf("%#x", code)
	}
}

func TestStreamsThatNobodyAsksForStandStillUntilTheyAreGivenUp(t *testing.T) {
	h := connected(t)
	p := h.sh("while echo 0123456789abcdef; do :; done")
	h.until("output", func() bool { return p.out.data.Len() > 1000 })
	h.another()
	blocked := func() string {
		text, _ := h.call(wire.GetProperties, map[string]any{"Query": `{"PropertyTypes":["ProcessList"]}`})["Properties"].(string)
		return text
	}
	if text := blocked(); !strings.Contains(text, fmt.Sprintf("{\"ProcessId\":%v}", p.pid)) {
		t.Fatalf("it is not there: %s", text)
	}
	q, _ := h.attach(p.pid, "StdIn") // neither output nor errors
	h.call(wire.SignalProcess, map[string]any{"ProcessId": p.pid, "Options": map[string]any{"Signal": 15}})
	if answer := h.answer(q.wait); answer["ExitCode"] != 143.0 {
		t.Errorf("%v", answer)
	}
}

func TestWhatCannotBeAttachedIsRefusedAndStaysAsItWas(t *testing.T) {
	h := connected(t)
	p := h.sh("cat; exit 4")
	attach := func(body map[string]any) wire.HResult {
		code, _ := h.refused(wire.AttachProcess, body)
		return code
	}
	if code := attach(map[string]any{"ProcessId": p.pid}); code != wire.InvalidState {
		t.Errorf("one that its host has: %#x", code)
	}
	pid := p.pid
	h.another()
	if code := attach(map[string]any{"ProcessId": 4_000_000}); code != wire.NotFound {
		t.Errorf("one that is not there: %#x", code)
	}
	if code := attach(map[string]any{"ProcessId": pid, "VsockStdioRelaySettings": map[string]any{"StdOut": 5}}); code != wire.Fail {
		t.Errorf("a port on which nobody listens: %#x", code)
	}
	p, _ = h.attach(pid, "StdIn", "StdOut", "StdErr")
	if code := attach(map[string]any{"ProcessId": pid}); code != wire.InvalidState {
		t.Errorf("one that is attached: %#x", code)
	}
	h.send(p.in, []byte("x"))
	p.eof()
	if code := p.code(); code != 4 || p.out.data.String() != "x" {
		t.Errorf("%d %q", code, p.out.data.String())
	}
}

func TestAHostThatBeginsAnewWithoutASnapshotEndsTheStreams(t *testing.T) {
	h := connected(t)
	p := h.spawn(parameters{"CommandArgs": []string{"yes"}})
	h.until("output", func() bool { return p.out.data.Len() > 100 })
	h.begin(entropyPort, logPort, bridgePort)
	h.negotiate()
	answer := h.call(wire.WaitForProcess, map[string]any{"ProcessId": p.pid, "TimeoutInMs": uint32(wire.NoTimeout)})
	if answer["ExitCode"] != 141.0 {
		t.Errorf("%v, want that of SIGPIPE", answer)
	}
}

func TestWhatCanBeAttachedIsListed(t *testing.T) {
	h := connected(t)
	p, q := h.sh("read x; echo $x; read x"), h.spawn(parameters{"CommandArgs": []string{"/bin/cat"}, "EmulateConsole": true, "CreateStdErrPipe": false})
	for one, lines := range map[*process]int{p: 1, q: 2} { // it is its program then; a terminal shows by itself what is typed
		h.send(one.in, []byte("x\n"))
		h.until("an answer", func() bool { return strings.Count(one.out.data.String(), "x") == lines })
	}
	list := func() string {
		text, _ := h.call(wire.GetProperties, map[string]any{"Query": `{"PropertyTypes":["DetachedProcesses"]}`})["Properties"].(string)
		return text
	}
	if text := list(); text != `{"DetachedProcesses":[]}` {
		t.Errorf("before a snapshot: %s", text)
	}
	h.another()
	one := fmt.Sprintf(`{"ProcessId":%v,"Name":"sh","ContainerId":"","Terminal":false,"Ended":false}`, p.pid)
	other := fmt.Sprintf(`{"ProcessId":%v,"Name":"cat","ContainerId":"","Terminal":true,"Ended":false}`, q.pid)
	if text := list(); text != `{"DetachedProcesses":[`+one+`,`+other+`]}` {
		t.Errorf("%s", text)
	}
	h.attach(p.pid)
	if text := list(); text != `{"DetachedProcesses":[`+other+`]}` {
		t.Errorf("%s", text)
	}
}

func TestOutputThatComesBeforeAnybodyAttachesIsKept(t *testing.T) {
	h := connected(t)
	p := h.sh("trap 'echo late; exit 2' USR1; echo ready; while :; do sleep 0.01; done")
	h.until("its beginning", func() bool { return p.out.data.Len() > 0 })
	h.another()
	h.call(wire.SignalProcess, map[string]any{"ProcessId": p.pid, "Options": map[string]any{"Signal": 10}})
	if answer := h.call(wire.WaitForProcess, map[string]any{"ProcessId": p.pid, "TimeoutInMs": uint32(wire.NoTimeout)}); answer["ExitCode"] != 2.0 {
		t.Fatalf("%v", answer)
	}
	p, _ = h.attach(p.pid, "StdOut", "StdErr")
	if code := p.code(); code != 2 || p.out.data.String() != "late\n" {
		t.Errorf("%d %q", code, p.out.data.String())
	}
}

func TestInputThatNobodyAsksForEndsAfterWhatWasLeft(t *testing.T) {
	h := connected(t)
	p := h.catLater()
	h.send(p.in, make([]byte, unread))
	h.another()
	p, _ = h.attach(p.pid, "StdOut", "StdErr")
	p.signal(10)
	if code := p.code(); code != 0 || p.out.data.Len() != unread {
		t.Errorf("%d, %d bytes", code, p.out.data.Len())
	}
}
