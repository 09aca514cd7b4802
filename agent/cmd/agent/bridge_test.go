package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"utilityvm/agent/wire"
)

func TestNegotiation(t *testing.T) {
	h := start(t)
	h.begin(entropyPort, logPort, bridgePort)
	h.until("the bridge", func() bool { return h.streams[bridgePort] != nil })
	if code, text := h.refused(wire.ExecuteProcess, map[string]any{}); code != wire.NotImpl || text != "bridge: function not supported, header type: 0x10100501" {
		t.Errorf("%#x %s", code, text)
	}
	for _, offer := range [][2]int{{1, 3}, {5, 6}} {
		body := map[string]any{"ContainerId": "", "MinimumVersion": offer[0], "MaximumVersion": offer[1]}
		if code, _ := h.refused(wire.NegotiateProtocol, body); code != wire.UnsupportedProtocolVersion {
			t.Errorf("%v: %#x", offer, code)
		}
	}
	h.negotiate()
	if code, text := h.refused(wire.NegotiateProtocol, map[string]any{}); code != wire.NotImpl || text != "bridge: function not supported, header type: 0x10100b01" {
		t.Errorf("%#x %s", code, text)
	}
}

func TestRequestsThatAreWrong(t *testing.T) {
	h := connected(t)
	for text, code := range map[string]wire.HResult{
		"not json":                              wire.InvalidJSON,
		`{"a":1`:                                wire.InvalidJSON,
		"":                                      wire.InvalidJSON,
		`{"ContainerId":"other","Settings":{}}`: wire.SystemNotFound,
		`{"ContainerId":"` + nullGUID + `","Settings":{"ProcessParameters":"{"}}`: wire.InvalidJSON,
	} {
		if answer := h.answer(h.postRaw(wire.ExecuteProcess, []byte(text))); result(answer) != code {
			t.Errorf("%s: %v, want %#x", text, answer, code)
		}
	}
	activity := "01234567-89ab-cdef-0123-456789abcdef"
	if answer := h.call(wire.WaitForProcess, map[string]any{"ProcessId": 1, "ActivityId": activity}); answer["ActivityId"] != activity {
		t.Error(answer)
	}
}

func TestAFrameCutAtEveryByte(t *testing.T) {
	h := connected(t)
	body, _ := h.request(parameters{"CommandArgs": []string{"true"}, "CreateStdInPipe": false, "CreateStdOutPipe": false, "CreateStdErrPipe": false})
	body["ContainerId"] = nullGUID
	text, _ := json.Marshal(body)
	bridge := h.streams[bridgePort]
	for cut := 0; cut <= wire.FrameHeaderSize+len(text); cut++ {
		id := h.nextID
		h.nextID++
		frame := wire.AppendFrame(nil, wire.ExecuteProcess, id, func(b []byte) []byte { return append(b, text...) })
		h.send(bridge, frame[:cut])
		h.send(bridge, frame[cut:])
		if answer := h.answer(id); answer["Result"] != 0.0 {
			t.Fatalf("cut at %d: %v", cut, answer)
		}
	}
}

func TestABrokenBridgeCanBeDialledAnew(t *testing.T) {
	for name, rubbish := range map[string]wire.MessageType{"size": 0, "a response": wire.ExecuteProcess.Response()} {
		t.Run(name, func(t *testing.T) {
			h := connected(t)
			bridge := h.streams[bridgePort]
			if rubbish == 0 {
				h.send(bridge, []byte{1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
			} else {
				h.postRaw(rubbish, []byte("{}"))
			}
			h.until("the bridge's end", func() bool { return bridge.eof })
			h.silence(50 * time.Millisecond)
			if h.streams[bridgePort] != bridge {
				t.Fatal("dialled without being asked")
			}
			h.frames = wire.FrameReader{}
			h.write(wire.Packet{Type: wire.TypeControl, Op: wire.CtlListen, DstPort: bridgePort})
			h.until("a new bridge", func() bool { return h.streams[bridgePort] != bridge })
			h.negotiate()
		})
	}
}

func TestTheLogIsJSONLines(t *testing.T) {
	h := connected(t)
	h.sh("exit 0").code()
	text := &h.streams[logPort].data
	h.until("a record of the process", func() bool {
		return strings.Contains(text.String(), "process started") && strings.HasSuffix(text.String(), "\n")
	})
	for _, line := range strings.Split(strings.TrimSpace(text.String()), "\n") {
		var record struct{ Time, Level, Msg string }
		if err := json.Unmarshal([]byte(line), &record); err != nil || record.Level == "" || record.Msg == "" {
			t.Errorf("%s: %v", line, err)
		}
		if _, err := time.Parse(time.RFC3339Nano, record.Time); err != nil {
			t.Error(err)
		}
	}
}

func TestNoProcessIsLoggedAtLevelInfo(t *testing.T) {
	h := connected(t, "-e", "1", "/bin/vsockexec", "-o", "109", "/bin/gcs", "-v4", "-loglevel=info")
	h.sh("exit 0").code()
	h.silence(50 * time.Millisecond)
	if text := h.streams[logPort].data.String(); !strings.Contains(text, "bridge negotiated") || strings.Contains(text, "process") {
		t.Errorf("%s", text)
	}
}

func TestShutdown(t *testing.T) {
	for _, kind := range []wire.MessageType{wire.ShutdownGraceful, wire.ShutdownForced} {
		h := connected(t)
		p := h.spawn(parameters{"CommandArgs": []string{"sleep", "60"}})
		id := h.post(kind, map[string]any{})
		if code, text := h.exits(); code != 0 || text != "" || h.answers[id] != nil {
			t.Errorf("%#x: status %d %q, answer %v", kind, code, text, h.answers[id])
		}
		for deadline := time.Now().Add(patience); alive(p.pid); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("a process was left behind")
			}
		}
	}
}

// alive reports whether a process runs.
func alive(pid float64) bool {
	_, err := os.Readlink(fmt.Sprintf("/proc/%.0f/exe", pid))
	return err == nil
}
