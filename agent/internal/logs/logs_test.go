package logs

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"
)

func clock() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.FixedZone("", 3600)) }

// drain reads all that the logger has.
func drain(l *Logger) string {
	var text []byte
	piece := make([]byte, 100)
	for more := true; more; {
		var n int
		n, more = l.Fill(piece)
		text = append(text, piece[:n]...)
	}
	return string(text)
}

func TestRecordsAsJSONAndAsText(t *testing.T) {
	for asJSON, want := range map[bool]string{
		true:  `{"time":"2026-01-02T02:04:05.678901234Z","level":"info","msg":"a \"b\"","pid":"7"}` + "\n",
		false: `time="2026-01-02T02:04:05.678901234Z" level="info" msg="a \"b\"" pid="7"` + "\n",
	} {
		l := New(Info, asJSON, clock)
		l.Write(Debug, "not this")
		l.Write(Info, `a "b"`, Field{"pid", "7"})
		if got := drain(l); got != want {
			t.Errorf("got %s want %s", got, want)
		}
	}
}

func TestRecordsThatNobodyReadsAreDroppedAndCounted(t *testing.T) {
	l := New(Info, true, clock)
	for i := 0; i < 2000; i++ {
		l.Write(Info, strings.Repeat("x", 100))
	}
	text := drain(l)
	if len(text) > maxKept+1000 {
		t.Errorf("%d bytes were kept", len(text))
	}
	kept := strings.Count(text, "\n")
	l.Write(Error, "again")
	var lost struct{ Level, Dropped string }
	lines := strings.Split(drain(l), "\n")
	if err := json.Unmarshal([]byte(lines[0]), &lost); err != nil || lost.Level != "warning" || lost.Dropped == "" || len(lines) != 3 {
		t.Errorf("%q %v", lines, err)
	}
	if dropped, _ := strconv.Atoi(lost.Dropped); kept+dropped != 2000 {
		t.Errorf("%d kept, %s dropped", kept, lost.Dropped)
	}
}

func TestLevels(t *testing.T) {
	for word, want := range map[string]Level{"trace": Trace, "debug": Debug, "info": Info, "warn": Warning, "warning": Warning, "error": Error, "fatal": Fatal, "panic": Panic} {
		if got, ok := ParseLevel(word); !ok || got != want {
			t.Errorf("%s: %v %v", word, got, ok)
		}
	}
	if _, ok := ParseLevel("loud"); ok {
		t.Error("loud")
	}
}
