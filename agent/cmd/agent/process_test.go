package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"utilityvm/agent/wire"
)

func TestSignals(t *testing.T) {
	h := connected(t)
	sleep := parameters{"CommandArgs": []string{"sleep", "60"}}
	for signal, code := range map[int]int{0: 137, 9: 137, 15: 143, 1: 129} {
		p := h.spawn(sleep)
		if answer := p.signal(signal); answer["Result"] != 0.0 {
			t.Fatal(answer)
		}
		if got := p.code(); got != code {
			t.Errorf("signal %d: exit %d, want %d", signal, got, code)
		}
	}
	p := h.spawn(sleep)
	if code, text := h.refused(wire.SignalProcess, map[string]any{"ProcessId": p.pid, "Options": map[string]any{"Signal": 65}}); code != wire.InvalidArg {
		t.Errorf("%#x %s", code, text)
	}
	if answer := h.call(wire.SignalProcess, map[string]any{"ProcessId": p.pid}); answer["Result"] != 0.0 { // no options: SIGKILL
		t.Error(answer)
	}
	if got := p.code(); got != 137 {
		t.Errorf("exit %d", got)
	}
}

func TestASignalToTheGroupReachesTheChildren(t *testing.T) {
	h := connected(t)
	p := h.sh("sleep 60 & echo ready; wait")
	h.until("it runs", func() bool { return p.out.data.Len() > 0 })
	options := map[string]any{"Signal": 15, "Group": true}
	if answer := h.call(wire.SignalProcess, map[string]any{"ProcessId": p.pid, "Options": options}); answer["Result"] != 0.0 {
		t.Fatal(answer)
	}
	if got := p.code(); got != 143 {
		t.Errorf("exit %d", got)
	}
	h.buried()
}

func TestAnExitCodeIsKeptUntilSomebodyAsks(t *testing.T) {
	h := connected(t)
	body, ports := h.request(parameters{"CommandArgs": []string{"sh", "-c", "exit 9"}})
	pid := h.call(wire.ExecuteProcess, body)["ProcessId"]
	out := h.streams[ports["StdOut"]]
	h.until("the end of output", func() bool { return out.eof })
	h.buried()
	if code, _ := h.refused(wire.SignalProcess, map[string]any{"ProcessId": pid}); code != wire.NotFound {
		t.Errorf("a signal to a process that has ended: %#x", code)
	}
	if answer := h.call(wire.ResizeConsole, map[string]any{"ProcessId": pid, "Height": 1, "Width": 1}); answer["Result"] != 0.0 {
		t.Errorf("resize after the end: %v", answer)
	}
	if answer := h.call(wire.WaitForProcess, map[string]any{"ProcessId": pid, "TimeoutInMs": 0}); answer["ExitCode"] != 9.0 {
		t.Error(answer)
	}
	for _, kind := range []wire.MessageType{wire.WaitForProcess, wire.SignalProcess, wire.ResizeConsole} {
		if code, text := h.refused(kind, map[string]any{"ProcessId": pid}); code != wire.NotFound || text != fmt.Sprintf("no such process: %v", pid) {
			t.Errorf("%#x: %#x %s", kind, code, text)
		}
	}
}

func TestAllWhoWaitAreAnswered(t *testing.T) {
	h := connected(t)
	p := h.sh("read x; exit 3")
	second := h.post(wire.WaitForProcess, map[string]any{"ProcessId": p.pid, "TimeoutInMs": 60_000})
	h.send(p.in, []byte("\n"))
	if answer := h.answer(second); answer["ExitCode"] != 3.0 || p.code() != 3 {
		t.Error(answer)
	}
}

func TestWaitingTimesOut(t *testing.T) {
	h := connected(t)
	p := h.sh("read x; exit 4")
	began := time.Now()
	late := h.post(wire.WaitForProcess, map[string]any{"ProcessId": p.pid, "TimeoutInMs": 400})
	soon := h.post(wire.WaitForProcess, map[string]any{"ProcessId": p.pid, "TimeoutInMs": 50})
	h.answer(soon)
	if h.answers[late] != nil {
		t.Error("the longer wait ended first")
	}
	if answer := h.answer(late); result(answer) != wire.Timeout || time.Since(began) < 400*time.Millisecond {
		t.Errorf("%v after %v", answer, time.Since(began))
	}
	h.send(p.in, []byte("\n"))
	if code := p.code(); code != 4 {
		t.Errorf("exit %d", code)
	}
}

func TestOnlyATerminalCanBeResized(t *testing.T) {
	h := connected(t)
	p := h.sh("read x")
	code, text := h.refused(wire.ResizeConsole, map[string]any{"ProcessId": p.pid, "Height": 24, "Width": 80})
	if code != wire.Fail || text != fmt.Sprintf("pid: %.0f, is not a tty and cannot be resized", p.pid) {
		t.Errorf("%#x %s", code, text)
	}
	p.eof()
	p.code()
}

func TestOnlySoManyEndedProcessesAreKept(t *testing.T) {
	h := connected(t)
	var pids []any
	for i := 0; i < 1026; i++ {
		body, _ := h.request(parameters{"CommandArgs": []string{"true"}, "CreateStdInPipe": false, "CreateStdOutPipe": false, "CreateStdErrPipe": false})
		pids = append(pids, h.call(wire.ExecuteProcess, body)["ProcessId"])
	}
	h.buried()
	forgotten := 0
	for _, pid := range pids {
		if answer := h.call(wire.WaitForProcess, map[string]any{"ProcessId": pid, "TimeoutInMs": 0}); answer["Result"] != 0.0 {
			forgotten++
		}
	}
	if forgotten != 2 {
		t.Errorf("%d of %d were forgotten", forgotten, len(pids))
	}
}

// buried waits until the agent has no children.
func (h *host) buried() {
	h.t.Helper()
	for deadline := time.Now().Add(patience); h.children() != ""; {
		if h.silence(10 * time.Millisecond); time.Now().After(deadline) {
			h.t.Fatalf("children left: %s", h.children())
		}
	}
}

func (h *host) children() string {
	h.t.Helper()
	pid := h.agent.Process.Pid
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		h.t.Skip("this kernel does not list children")
	}
	return strings.TrimSpace(string(text))
}

func TestOrphansAreBuried(t *testing.T) {
	h := connected(t)
	p := h.sh("(sleep 0.1; exit 5) & (sleep 0.2 &) ; exit 0")
	if code := p.code(); code != 0 {
		t.Fatalf("exit %d", code)
	}
	h.buried()
}

func TestWhatAProcessIsStartedWith(t *testing.T) {
	h := connected(t)
	folder := t.TempDir()
	p := h.spawn(parameters{"CommandLine": `sh -c 'pwd; echo "$A"; cut -d" " -f6 /proc/$$/stat; echo $$'`, "WorkingDirectory": folder,
		"Environment": map[string]string{"A": "1 2", "PATH": "/usr/bin:/bin"}})
	code := p.code()
	lines := strings.Split(p.out.data.String(), "\n")
	if code != 0 || len(lines) != 5 || lines[0] != folder || lines[1] != "1 2" || lines[2] != lines[3] {
		t.Errorf("%d %q %q", code, lines, p.er.data.String())
	}
}

func TestNoOtherDescriptorsReachAProcess(t *testing.T) {
	h := connected(t)
	list := func() string {
		p := h.spawn(parameters{"CommandArgs": []string{"ls", "/proc/self/fd"}})
		if code := p.code(); code != 0 {
			t.Fatalf("exit %d", code)
		}
		return p.out.data.String()
	}
	alone := list() // what this test was started with may be among them
	other := h.sh("read x")
	if among := list(); among != alone {
		t.Errorf("%q beside another process, %q alone", among, alone)
	}
	other.eof()
	other.code()
}

func TestUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	h := connected(t)
	for user, want := range map[string]string{
		"nobody": "65534:65534", "65534": "65534:65534", "12345": "12345:0", "12345:678": "12345:678", "nobody:0": "65534:0", "": "0:0",
	} {
		p := h.spawn(parameters{"CommandArgs": []string{"sh", "-c", "echo $(id -u):$(id -g)"}, "User": user, "Environment": map[string]string{"PATH": "/usr/bin:/bin"}})
		if code := p.code(); code != 0 || p.out.data.String() != want+"\n" {
			t.Errorf("%q: %d %q, want %s", user, code, p.out.data.String(), want)
		}
	}
}

func TestAUserMayOpenItsStreamsByName(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	h := connected(t)
	for _, console := range []bool{false, true} {
		p := h.spawn(parameters{"CommandArgs": []string{"sh", "-c", "echo opened > /proc/self/fd/1"}, "User": "nobody",
			"Environment": map[string]string{"PATH": "/usr/bin:/bin"}, "EmulateConsole": console, "CreateStdErrPipe": !console})
		if code := p.code(); code != 0 || strings.TrimSpace(p.out.data.String()) != "opened" {
			t.Errorf("console %v: %d %q", console, code, p.out.data.String())
		}
	}
}

func TestFailuresToStart(t *testing.T) {
	h := connected(t)
	plain := t.TempDir() + "/plain"
	if err := os.WriteFile(plain, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		p    parameters
		code wire.HResult
		text string
	}{
		{parameters{"CommandArgs": []string{"/no/such"}}, wire.FileNotFound, "/no/such: no such file or directory"},
		{parameters{"CommandArgs": []string{"no-such-program"}}, wire.FileNotFound, "no-such-program: no such file"},
		{parameters{"CommandArgs": []string{"true"}, "WorkingDirectory": "/no/folder"}, wire.PathNotFound, "working directory /no/folder"},
		{parameters{"CommandArgs": []string{"true"}, "WorkingDirectory": plain}, wire.PathNotFound, "working directory " + plain},
		{parameters{"CommandArgs": []string{plain}}, wire.AccessDenied, "permission denied"},
		{parameters{"CommandArgs": []string{"/tmp"}}, wire.AccessDenied, "permission denied"},
		{parameters{"CommandLine": `sh -c 'open`}, wire.InvalidArg, `failed to parse command line string "sh -c 'open"`},
		{parameters{}, wire.InvalidArg, "no command"},
		{parameters{"CommandArgs": []string{"true"}, "User": "no-such-user"}, wire.InvalidArg, "no such user: no-such-user"},
		{parameters{"CommandArgs": []string{"true"}, "User": "0:no-such-group"}, wire.InvalidArg, "no such group: 0:no-such-group"},
		{parameters{"CommandArgs": []string{"a\x00b"}}, wire.InvalidArg, "zero byte"},
		{parameters{"CommandArgs": []string{"true"}, "ConsoleSize": []int{1}}, wire.InvalidArg, "ConsoleSize"},
		{parameters{"CommandArgs": []string{"true"}, "Environment": map[string]string{"": "x"}}, wire.InvalidArg, "no name"},
	} {
		body, ports := h.request(c.p)
		if code, text := h.refused(wire.ExecuteProcess, body); code != c.code || !strings.Contains(text, c.text) {
			t.Errorf("%v: %#x %s, want %#x %s", c.p, code, text, c.code, c.text)
		}
		for name, port := range ports {
			if s := h.streams[port]; s != nil {
				h.until(name+" to be reset", func() bool { return s.gone })
			}
		}
	}
	if left := h.children(); left != "" {
		t.Errorf("children left: %s", left)
	}
}
