package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// goldenFolder is a link to protocol/golden: of files outside the module the test cache would not see that they have changed.
const goldenFolder = "testdata/golden/"

// vector is one entry of protocol/golden, whose README says what its members mean.
type vector struct {
	Name   string        `json:"name"`
	From   string        `json:"from"`
	Hex    string        `json:"hex"`
	Events []goldenEvent `json:"events"`
}

type goldenEvent struct {
	Type     uint32 `json:"type"`
	Op       uint16 `json:"op"`
	SrcPort  uint32 `json:"src_port"`
	DstPort  uint32 `json:"dst_port"`
	Flags    uint32 `json:"flags"`
	BufAlloc uint32 `json:"buf_alloc"`
	FwdCnt   uint32 `json:"fwd_cnt"`
	Payload  string `json:"payload"`
	ID       uint64 `json:"id"`
	Body     string `json:"body"`
	Error    string `json:"error"`
}

func vectors(t testing.TB, file string) []vector {
	t.Helper()
	folder := goldenFolder
	if other := os.Getenv("UVM_VECTORS"); other != "" { // where the host's fuzzer has written down what its codecs read
		folder = other + "/"
	}
	text, err := os.ReadFile(folder + file)
	if err != nil {
		t.Fatal(err)
	}
	var list []vector
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		t.Fatal(file + " is empty")
	}
	return list
}

// unhex reads pieces of hexadecimal digits, each perhaps with a count.
func unhex(t testing.TB, text string) []byte {
	t.Helper()
	var out []byte
	for _, piece := range strings.Fields(text) {
		digits, times, repeated := strings.Cut(piece, "*")
		count := 1
		raw, err := hex.DecodeString(digits)
		if repeated && err == nil {
			count, err = strconv.Atoi(times)
		}
		if err != nil {
			t.Fatalf("%q: %v", piece, err)
		}
		out = append(out, bytes.Repeat(raw, count)...)
	}
	return out
}

// cuts returns where to cut a stream of n bytes: everywhere, or near the ends and now and then when it is long.
func cuts(n int) []int {
	var at []int
	for i := 0; i <= n; i++ {
		if n < 8192 || i < 128 || n-i < 128 || i%1021 == 0 {
			at = append(at, i)
		}
	}
	return at
}

func (v *vector) sender() Sender {
	if v.From == "guest" {
		return FromGuest
	}
	return FromHost
}

// readPackets feeds pieces to a new reader and returns what it reports.
func readPackets(from Sender, pieces ...[]byte) (out []goldenEvent) {
	r := NewPacketReader(from)
	for _, piece := range pieces {
		for len(piece) > 0 {
			n := copy(r.Space(), piece)
			r.Filled(n)
			piece = piece[n:]
			for {
				p, ok, err := r.Next()
				var refused *PacketError
				if errors.As(err, &refused) {
					return append(out, goldenEvent{Error: refused.Reason})
				}
				if !ok {
					break
				}
				out = append(out, goldenEvent{
					Type: uint32(p.Type), Op: uint16(p.Op), SrcPort: p.SrcPort, DstPort: p.DstPort, Flags: p.Flags,
					BufAlloc: p.BufAlloc, FwdCnt: p.FwdCnt, Payload: hex.EncodeToString(p.Payload),
				})
			}
		}
	}
	return out
}

func readFrames(pieces ...[]byte) (out []goldenEvent) {
	var r FrameReader
	for _, piece := range pieces {
		err := r.Feed(piece, func(f Frame) {
			out = append(out, goldenEvent{Type: uint32(f.Type), ID: f.ID, Body: hex.EncodeToString(f.Body)})
		})
		if err != nil {
			return append(out, goldenEvent{Error: "size"})
		}
	}
	return out
}

func check(t *testing.T, v *vector, read func(...[]byte) []goldenEvent) {
	stream := unhex(t, v.Hex)
	want := append([]goldenEvent(nil), v.Events...)
	for i := range want {
		want[i].Payload = hex.EncodeToString(unhex(t, want[i].Payload))
		want[i].Body = hex.EncodeToString(unhex(t, want[i].Body))
	}
	for _, cut := range cuts(len(stream)) {
		if got := read(stream[:cut], stream[cut:]); !reflect.DeepEqual(got, want) && len(got)+len(want) > 0 {
			t.Fatalf("cut at %d: got %.500v, want %.500v", cut, got, want)
		}
	}
	var single [][]byte
	for i := range stream {
		single = append(single, stream[i:i+1])
	}
	if got := read(single...); !reflect.DeepEqual(got, want) && len(got)+len(want) > 0 {
		t.Fatalf("byte by byte: got %.500v, want %.500v", got, want)
	}
}

func TestGoldenPacketsAreReadHoweverTheyAreCut(t *testing.T) {
	for _, v := range vectors(t, "packets.json") {
		v := v
		t.Run(v.Name, func(t *testing.T) {
			check(t, &v, func(pieces ...[]byte) []goldenEvent { return readPackets(v.sender(), pieces...) })
		})
	}
}

func TestGoldenFramesAreReadHoweverTheyAreCut(t *testing.T) {
	for _, v := range vectors(t, "frames.json") {
		v := v
		t.Run(v.Name, func(t *testing.T) { check(t, &v, readFrames) })
	}
}

// whole reports whether writing the events must give the stream.
func (v *vector) whole() bool {
	for _, e := range v.Events {
		if e.Error != "" {
			return false
		}
	}
	return !strings.Contains(v.Name, "half")
}

func TestGoldenStreamsAreWritten(t *testing.T) {
	written := 0
	for _, v := range vectors(t, "packets.json") {
		var out []byte
		for _, e := range v.Events {
			out = AppendPacket(out, &Packet{
				Type: uint16(e.Type), Op: Op(e.Op), SrcPort: e.SrcPort, DstPort: e.DstPort, Flags: e.Flags,
				BufAlloc: e.BufAlloc, FwdCnt: e.FwdCnt, Payload: unhex(t, e.Payload),
			}, v.sender())
		}
		if v.whole() && !bytes.Equal(out, unhex(t, v.Hex)) {
			t.Errorf("%s: written as %x", v.Name, out)
		}
		written += len(out)
	}
	for _, v := range vectors(t, "frames.json") {
		var out []byte
		for _, e := range v.Events {
			out = AppendFrame(out, MessageType(e.Type), e.ID, func(b []byte) []byte { return append(b, unhex(t, e.Body)...) })
		}
		if v.whole() && !bytes.Equal(out, unhex(t, v.Hex)) {
			t.Errorf("%s: written as %x", v.Name, out)
		}
		written += len(out)
	}
	if written == 0 {
		t.Error("nothing was written")
	}
}
