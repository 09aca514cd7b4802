package wire

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestTheLongestListOfProcessesFitsIntoAFrame(t *testing.T) {
	pids := make([]int, MaxProcesses+1000)
	for i := range pids {
		pids[i] = 1<<22 - len(pids) + i // the highest ids that Linux gives
	}
	p := Properties{Memory: &Memory{Available: 1 << 52, Assigned: 1 << 52}, Listed: true, Processes: pids}
	text := AppendProperties(nil, &p)
	var told struct{ ProcessList []struct{ ProcessId int } }
	if err := json.Unmarshal(text, &told); err != nil || len(told.ProcessList) != MaxProcesses || told.ProcessList[0].ProcessId != pids[0] {
		t.Fatalf("%d processes, %v", len(told.ProcessList), err)
	}
	longest := strings.Repeat("\x01", maxActivity)
	answer := AppendResponse(nil, Response{Member: "Properties", Text: string(text)}, longest)
	var response struct{ Properties string }
	if err := json.Unmarshal(answer, &response); err != nil || response.Properties != string(text) {
		t.Fatalf("the list was cut: %v", err)
	}
	if size := FrameHeaderSize + len(answer); size > MaxFrame {
		t.Fatalf("a frame of %d bytes", size)
	}
}

func TestATextThatIsTooLongIsCutBetweenCharacters(t *testing.T) {
	for _, piece := range []string{"a", "\n", "\x01", "\"", "\u20ac", "\U0001f600", "\xff"} {
		text := strings.Repeat(piece, MaxText)
		answer := AppendResponse(nil, Response{Member: "GuestStacks", Text: text}, strings.Repeat("\x01", maxActivity))
		var response struct{ GuestStacks string }
		if err := json.Unmarshal(answer, &response); err != nil {
			t.Fatalf("%q: %v", piece, err)
		}
		if size := FrameHeaderSize + len(answer); size > MaxFrame || size < MaxText-8 {
			t.Fatalf("%q: a frame of %d bytes", piece, size)
		}
		if want := strings.ToValidUTF8(text, "\ufffd"); piece != "\xff" && !strings.HasPrefix(want, response.GuestStacks) {
			t.Fatalf("%q: not the beginning", piece)
		}
	}
}

// FuzzQuery reads whatever comes as what GetProperties asks for.
func FuzzQuery(f *testing.F) {
	fromHost, _ := messages(f)
	for _, m := range fromHost {
		if m.Type == GetProperties {
			f.Add([]byte(m.Body))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		q, err := ParseQuery(body)
		if err != nil && CodeOf(err) != InvalidJSON {
			t.Fatal(err)
		}
		size := 0
		for _, name := range q.Types {
			size += len(name) + 1
		}
		if size > len(body) {
			t.Fatalf("%d bytes of text out of %d", size, len(body))
		}
	})
}

func TestTheLongestListOfWhatCanBeAttachedFitsIntoAFrame(t *testing.T) {
	p := Properties{Detached: make([]Detached, MaxDetached+1)}
	for i := range p.Detached {
		p.Detached[i] = Detached{PID: 1<<31 - 1, Name: strings.Repeat("\x01", 15), ContainerID: strings.Repeat("c", 128)}
	}
	text := AppendProperties(nil, &p)
	if n := strings.Count(string(text), "ProcessId"); n != MaxDetached {
		t.Errorf("%d listed", n)
	}
	if written := AppendString(nil, string(text)); len(written) > MaxText {
		t.Errorf("%d bytes", len(written))
	}
}
