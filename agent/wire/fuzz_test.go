package wire

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzPackets(f *testing.F) {
	for _, v := range vectors(f, "packets.json") {
		f.Add(unhex(f, v.Hex), uint16(7))
	}
	f.Fuzz(func(t *testing.T, stream []byte, cut uint16) {
		at := int(cut) % (len(stream) + 1)
		whole, parts := readPackets(FromHost, stream), readPackets(FromHost, stream[:at], stream[at:])
		if !reflect.DeepEqual(whole, parts) {
			t.Fatalf("cut at %d: %v instead of %v", at, parts, whole)
		}
	})
}

// FuzzConn gives a connection whatever packets may come and checks what must always hold.
func FuzzConn(f *testing.F) {
	f.Add([]byte{2, 5, 4, 6, 7, 3, 1})
	f.Add([]byte{2, 0x85, 0x25, 0x14, 0x24, 0x34, 5})
	f.Fuzz(func(t *testing.T, script []byte) {
		c := Dial(firstTestPort, 1)
		payload := make([]byte, MaxPayload)
		for _, b := range script {
			p := Packet{Type: TypeStream, Op: Op(b&7) + 1, Flags: uint32(b >> 3 & 3), BufAlloc: uint32(b) * 4096, FwdCnt: uint32(b >> 5)}
			if p.Op == OpRW {
				p.Payload = payload[:1+int(b)*251]
			}
			event, answer := c.Receive(&p)
			if (event&EvEnded != 0) != (c.State == Closed) {
				t.Fatalf("%v in state %v", event, c.State)
			}
			if c.State == Closed {
				return
			}
			if c.Unread() > Window || c.Unread() < 0 {
				t.Fatalf("%d bytes unread", c.Unread())
			}
			if answer == OpRst {
				t.Fatal("reset and not ended")
			}
			room := c.Room()
			if room < 0 || uint32(room) > p.BufAlloc {
				t.Fatalf("room for %d of %d", room, p.BufAlloc)
			}
			c.Sent(room / 2)
			c.Taken(c.Unread() / 2)
		}
	})
}

const firstTestPort = 0x80000000

func FuzzGcsFrame(f *testing.F) {
	for _, v := range vectors(f, "frames.json") {
		f.Add(unhex(f, v.Hex), uint16(7))
	}
	f.Fuzz(func(t *testing.T, stream []byte, cut uint16) {
		at := int(cut) % (len(stream) + 1)
		whole, parts := readFrames(stream), readFrames(stream[:at], stream[at:])
		if !reflect.DeepEqual(whole, parts) {
			t.Fatalf("cut at %d: %v instead of %v", at, parts, whole)
		}
		var r FrameReader
		_ = r.Feed(stream, func(fr Frame) { parseAll(fr.Body) })
	})
}

// parseAll reads body as every message; nothing may panic.
func parseAll(body []byte) {
	_, _ = ParseRequest(body)
	_, _ = ParseNegotiate(body)
	_, _ = ParseProcessRequest(body)
	_, _ = ParseAttach(body)
	if q, err := ParseExecute(body); err == nil {
		_, _ = ParseParameters(q.Parameters)
	}
	if q, err := ParseModify(body); err == nil {
		_, _ = ParseDisk(q.Settings)
		_, _ = ParsePMem(q.Settings)
		_, _ = ParsePCI(q.Settings)
		_, _ = ParseAdapter(q.Settings)
		_, _ = ParseLayers(q.Settings)
	}
	if q, err := ParseCreation(body); err == nil {
		_, _ = ParseDocument(q.Config)
	}
}

func FuzzShellWords(f *testing.F) {
	for line := range shellWords {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		words, ok := SplitWords(line)
		if !ok {
			return
		}
		// Quoted again, the words must come back: nothing was lost but the way they were written.
		var quoted []string
		for _, w := range words {
			quoted = append(quoted, "'"+strings.ReplaceAll(w, "'", `'\''`)+"'")
		}
		again, ok := SplitWords(strings.Join(quoted, " "))
		if !ok || !reflect.DeepEqual(words, again) {
			t.Fatalf("%q -> %q -> %q", line, words, again)
		}
	})
}

// reference is Parameters for the standard library's decoder.
type reference struct {
	CommandLine, User, WorkingDirectory string
	CommandArgs                         []string
	Environment                         map[string]string
	EmulateConsole, CreateStdInPipe     bool
	CreateStdOutPipe, CreateStdErrPipe  bool
	ConsoleSize                         []uint32
}

// FuzzJSON compares with the standard library, which is the judge of what JSON is.
func FuzzJSON(f *testing.F) {
	for _, text := range jsonTexts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseParameters(text)
		var want reference
		wantErr := json.Unmarshal([]byte(text), &want)
		if !utf8.ValidString(text) || foldedKey(text) || strings.Count(text, "[")+strings.Count(text, "{") >= maxDepth {
			return // refused, spelled or nested in a way that only the standard library takes
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: %v, the standard library says %v", text, err, wantErr)
		}
		if err != nil {
			return
		}
		if got.CommandLine != want.CommandLine || got.User != want.User || got.WorkingDirectory != want.WorkingDirectory ||
			got.EmulateConsole != want.EmulateConsole || got.CreateStdInPipe != want.CreateStdInPipe ||
			got.CreateStdOutPipe != want.CreateStdOutPipe || got.CreateStdErrPipe != want.CreateStdErrPipe {
			t.Fatalf("%q: %+v, the standard library says %+v", text, got, want)
		}
		if !sameList(got.CommandArgs, want.CommandArgs) {
			t.Fatalf("%q: %q, the standard library says %q", text, got.CommandArgs, want.CommandArgs)
		}
	})
}

func sameList(a, b []string) bool {
	return len(a) == len(b) && (len(a) == 0 || reflect.DeepEqual(a, b))
}

// foldedKey reports whether a key might match one of ours in the standard library's eyes only: by case, or because a
// repeated key makes it merge instead of replace.
func foldedKey(text string) bool {
	lower := strings.ToLower(text)
	if strings.ContainsAny(text, "\\\u017f\u212a") {
		return true
	}
	for _, key := range []string{"CommandLine", "CommandArgs", "Environment", "WorkingDirectory", "EmulateConsole",
		"CreateStdInPipe", "CreateStdOutPipe", "CreateStdErrPipe", "ConsoleSize", "User"} {
		if strings.Count(lower, strings.ToLower(key)) != strings.Count(text, key) || strings.Count(text, key) > 1 {
			return true
		}
	}
	return false
}

// FuzzJSONString checks that every string survives being written and read.
func FuzzJSONString(f *testing.F) {
	for _, text := range []string{"", "plain", "\"\\/\b\f\n\r\t\x00\x1f\x7f", "\u00e9\u20ac\U0001f600\u2028", "\xff\xed\xa0\x80"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		written := AppendString(nil, text)
		var want string
		if err := json.Unmarshal(written, &want); err != nil || want != strings.ToValidUTF8(eachRune(text), "\ufffd") {
			t.Fatalf("%q written as %s: %v", text, written, err)
		}
		r := newJSONReader(string(written))
		if got := r.str(); got != want || r.end() != nil {
			t.Fatalf("%s read as %q", written, got)
		}
	})
}

// eachRune replaces every byte that is not UTF-8 by its own U+FFFD.
func eachRune(text string) string { return string([]rune(text)) }
