package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"utilityvm/agent/wire"
)

func TestTwoHundredProcessesInARow(t *testing.T) {
	h := connected(t)
	for i := 0; i < 200; i++ {
		p := h.sh(fmt.Sprintf("echo out %d; echo err %d >&2; exit %d", i, i, i%256))
		if code := p.code(); code != i%256 || p.out.data.String() != fmt.Sprintf("out %d\n", i) || p.er.data.String() != fmt.Sprintf("err %d\n", i) {
			t.Fatalf("process %d: %d %q %q", i, code, p.out.data.String(), p.er.data.String())
		}
	}
}

func TestTwentyProcessesAtOnce(t *testing.T) {
	h := connected(t)
	var all []*process
	for i := 0; i < 20; i++ {
		all = append(all, h.sh(fmt.Sprintf("read x; echo $x %d; exit %d", i, i)))
	}
	for i := range all {
		h.send(all[len(all)-1-i].in, []byte(strconv.Itoa(i)+"\n"))
	}
	for i, p := range all {
		if code := p.code(); code != i || p.out.data.String() != fmt.Sprintf("%d %d\n", len(all)-1-i, i) {
			t.Errorf("process %d: %d %q", i, code, p.out.data.String())
		}
	}
}

func TestMegabytesThroughCat(t *testing.T) {
	h := connected(t)
	data := make([]byte, 6<<20+12345)
	_, _ = rand.Read(data)
	p := h.spawn(parameters{"CommandArgs": []string{"cat"}})
	h.send(p.in, data)
	p.eof()
	if code := p.code(); code != 0 || !bytes.Equal(p.out.data.Bytes(), data) {
		t.Errorf("exit %d, %d bytes came back of %d", code, p.out.data.Len(), len(data))
	}
}

func TestBytesSentBeforeTheProcessRunsReachIt(t *testing.T) {
	h := connected(t)
	body, ports := h.request(parameters{"CommandArgs": []string{"cat"}})
	id := h.post(wire.ExecuteProcess, body)
	h.until("stdin", func() bool { return h.streams[ports["StdIn"]] != nil })
	in := h.streams[ports["StdIn"]]
	h.send(in, []byte("early"))
	h.op(in, wire.OpShutdown, wire.ShutSend)
	h.answer(id)
	out := h.streams[ports["StdOut"]]
	h.until("output", func() bool { return out.eof })
	if out.data.String() != "early" {
		t.Errorf("%q", out.data.String())
	}
}

func TestAnEmptyInputThatEndsBeforeTheProcessRunsIsEmpty(t *testing.T) {
	h := connected(t)
	body, ports := h.request(parameters{"CommandArgs": []string{"cat"}})
	h.write(wire.Packet{Type: wire.TypeControl, Op: wire.CtlUnlisten, DstPort: ports["StdOut"]}) // not promised: it is waited for
	h.slow[ports["StdOut"]] = true
	id := h.post(wire.ExecuteProcess, body)
	h.until("the streams", func() bool { return h.streams[ports["StdIn"]] != nil && h.streams[ports["StdOut"]] != nil })
	h.op(h.streams[ports["StdIn"]], wire.OpShutdown, wire.ShutSend)
	h.op(h.streams[ports["StdOut"]], wire.OpResponse, 0)
	h.answer(id)
	h.until("the end of cat", func() bool { return h.streams[ports["StdOut"]].eof })
}

func TestAProgramThatClosesItsInputEndsTheStream(t *testing.T) {
	h := connected(t)
	p := h.sh("exec <&-; echo closed; exec sleep 60")
	h.until("the end of stdin", func() bool { return p.in.deafGuest })
	h.send(p.in, []byte("dropped"))
	h.until("output", func() bool { return p.out.data.Len() > 0 })
	p.signal(9)
	if code := p.code(); code != 137 || p.out.data.String() != "closed\n" {
		t.Errorf("%d %q", code, p.out.data.String())
	}
}

func TestInputThatNobodyReadsDoesNotOutliveTheProcess(t *testing.T) {
	h := connected(t)
	p := h.sh("sleep 0.2")
	h.send(p.in, make([]byte, wire.Window))
	if code := p.code(); code != 0 {
		t.Errorf("exit %d", code)
	}
	h.until("the end of stdin", func() bool { return p.in.deafGuest })
}

func TestAHostThatClosesOutputBreaksThePipe(t *testing.T) {
	h := connected(t)
	for name, end := range map[string]func(*stream){
		"shutdown": func(s *stream) { h.close(s) },
		"reset":    func(s *stream) { h.op(s, wire.OpRst, 0); s.eof = true },
	} {
		p := h.spawn(parameters{"CommandArgs": []string{"yes"}, "CreateStdErrPipe": false})
		h.until("output", func() bool { return p.out.data.Len() > 100 })
		end(p.out)
		if code := p.code(); code != 141 {
			t.Errorf("%s: exit %d, want that of SIGPIPE", name, code)
		}
	}
}

func TestAHostThatDoesNotReadBlocksTheProgram(t *testing.T) {
	h := connected(t)
	h.stall[h.next+1] = true
	const size = 16 << 20
	p := h.sh(fmt.Sprintf("head -c %d /dev/zero; echo done >&2", size))
	h.until("a full window", func() bool { return p.out.received == wire.Window })
	h.silence(200 * time.Millisecond)
	if p.out.received != wire.Window || p.er.data.Len() != 0 {
		t.Fatalf("%d bytes came without being taken; stderr %q", p.out.received, p.er.data.String())
	}
	checkMemory(t, h)
	p.out.stalled = false
	h.op(p.out, wire.OpCreditUpdate, 0)
	if code := p.code(); code != 0 || p.out.data.Len() != size || p.er.data.String() != "done\n" {
		t.Errorf("%d, %d bytes, %q", code, p.out.data.Len(), p.er.data.String())
	}
}

// A carrier that is full must stop the programs, and nothing may be lost when it flows again.
func TestACarrierThatIsFullBlocksThePrograms(t *testing.T) {
	h := connected(t)
	var all []*process
	for i := 0; i < 4; i++ {
		all = append(all, h.sh("head -c 3000000 /dev/zero"))
	}
	time.Sleep(300 * time.Millisecond) // nothing is read from the carrier
	checkMemory(t, h)
	for i, p := range all {
		if code := p.code(); code != 0 || p.out.data.Len() != 3000000 {
			t.Errorf("process %d: %d, %d bytes", i, code, p.out.data.Len())
		}
	}
}

// checkMemory fails when the agent holds far more than a few windows.
func checkMemory(t *testing.T, h *host) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.agent.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil || kib > 64*1024 { // the race detector's runtime takes most of it
		t.Errorf("the agent holds %d KiB (%v)", kib, err)
	}
}

func TestATerminal(t *testing.T) {
	h := connected(t)
	p := h.spawn(parameters{"CommandArgs": []string{"/bin/sh", "-c", "stty size && read x && stty size && echo got $x >/dev/tty"},
		"Environment": map[string]string{"PATH": "/usr/bin:/bin"}, "EmulateConsole": true, "ConsoleSize": []int{24, 80}, "CreateStdErrPipe": false})
	h.until("the first size", func() bool { return strings.Contains(p.out.data.String(), "24 80") })
	if answer := h.call(wire.ResizeConsole, map[string]any{"ProcessId": p.pid, "Height": 50, "Width": 132}); answer["Result"] != 0.0 {
		t.Fatal(answer)
	}
	h.send(p.in, []byte("line\r"))
	if code := p.code(); code != 0 {
		t.Errorf("exit %d: %q", code, p.out.data.String())
	}
	if text := p.out.data.String(); !strings.Contains(text, "50 132") || !strings.Contains(text, "got line") {
		t.Errorf("%q", text)
	}
}

func TestATerminalThatTheHostDropsHangsUp(t *testing.T) {
	h := connected(t)
	p := h.spawn(parameters{"CommandArgs": []string{"sleep", "60"}, "EmulateConsole": true, "CreateStdErrPipe": false})
	h.op(p.out, wire.OpRst, 0)
	p.out.eof = true
	if code := p.code(); code != 129 {
		t.Errorf("exit %d, want that of SIGHUP", code)
	}
}

func TestATerminalWithoutStreamsIsDrained(t *testing.T) {
	h := connected(t)
	p := h.spawn(parameters{"CommandArgs": []string{"head", "-c", "1000000", "/dev/zero"}, "EmulateConsole": true,
		"CreateStdInPipe": false, "CreateStdOutPipe": false, "CreateStdErrPipe": false})
	if code := p.code(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

func TestStreamsThatAreNotAskedForAreNull(t *testing.T) {
	h := connected(t)
	p := h.spawn(parameters{"CommandArgs": []string{"/bin/sh", "-c", "readlink /proc/self/fd/0 /proc/self/fd/2; pwd; env | grep -v ^PWD= | grep -v ^SHLVL= | grep -v ^_="},
		"Environment": map[string]string{"PATH": "/usr/bin:/bin"}, "CreateStdInPipe": false, "CreateStdErrPipe": false})
	if code := p.code(); code != 0 || p.out.data.String() != "/dev/null\n/dev/null\n/\nPATH=/usr/bin:/bin\n" {
		t.Errorf("%d %q", code, p.out.data.String())
	}
}

func TestAStreamThatTheHostDoesNotListenForFailsTheStart(t *testing.T) {
	for i, name := range []string{"stdin", "stdout", "stderr"} {
		h := connected(t)
		body, ports := h.request(parameters{"CommandArgs": []string{"true"}})
		port := h.next - 3 + uint32(i)
		h.write(wire.Packet{Type: wire.TypeControl, Op: wire.CtlUnlisten, DstPort: port})
		h.refuse[port] = true
		code, text := h.refused(wire.ExecuteProcess, body)
		if code != wire.Fail || text != "failed creating "+name+" Connection" {
			t.Errorf("%s: %#x %s", name, code, text)
		}
		for _, port := range ports {
			if s := h.streams[port]; s != nil {
				h.until("the others to be reset", func() bool { return s.gone })
			}
		}
	}
}

func TestAProgramDoesNotWaitForStreamsThatTheHostHasPromised(t *testing.T) {
	h := connected(t)
	h.slow[h.next], h.slow[h.next+1] = true, true
	p := h.spawn(parameters{"CommandArgs": []string{"/bin/sh", "-c", "exec <&-; echo said; exit 3"}, "CreateStdErrPipe": false})
	if answer := h.answer(p.wait); answer["ExitCode"] != 3.0 {
		t.Fatalf("%v: it ends though nobody has answered the dials", answer)
	}
	if p.in.deafGuest || p.out.eof || p.out.data.Len() != 0 {
		t.Error("the agent sent more than the dials")
	}
	h.op(p.in, wire.OpResponse, 0)
	h.op(p.out, wire.OpResponse, 0)
	h.until("what was owed", func() bool { return p.out.eof && p.in.deafGuest })
	if text := p.out.data.String(); text != "said\n" {
		t.Errorf("%q", text)
	}
}

func TestAPromisedStreamThatIsRefusedCostsTheProgramThatStream(t *testing.T) {
	h := connected(t)
	body, _ := h.request(parameters{"CommandArgs": []string{"cat", "/dev/zero"}, "CreateStdInPipe": false, "CreateStdErrPipe": false})
	h.refuse[h.next-1] = true
	answer := h.call(wire.ExecuteProcess, body)
	if answer["Result"] != 0.0 {
		t.Fatal(answer)
	}
	wait := h.post(wire.WaitForProcess, map[string]any{"ProcessId": answer["ProcessId"], "TimeoutInMs": uint32(wire.NoTimeout)})
	if code := h.answer(wait)["ExitCode"]; code != 141.0 {
		t.Errorf("exit %v, want that of SIGPIPE", code)
	}
}

func TestAPromiseIsForOneDialUnlessItSaysMore(t *testing.T) {
	h := connected(t)
	for _, more := range []bool{false, true} {
		body, ports := h.request(parameters{"CommandArgs": []string{"true"}, "CreateStdInPipe": false, "CreateStdErrPipe": false})
		if more {
			h.write(wire.Packet{Type: wire.TypeControl, Op: wire.CtlListen, DstPort: ports["StdOut"]})
		}
		h.call(wire.ExecuteProcess, body)
		h.refuse[ports["StdOut"]] = true
		if answer := h.call(wire.ExecuteProcess, body); (answer["Result"] == 0.0) != more {
			t.Errorf("listening for more %v: %v", more, answer)
		}
	}
}
