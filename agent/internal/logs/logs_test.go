package logs

import (
	"encoding/json"
	"math/rand"
	"strconv"
	"strings"
	"testing"
	"time"
)

func clock() (int64, int64) { return time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC).Unix(), 678901234 }

func TestTimestampsAreThoseOfTheStandardLibrary(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	for i := 0; i < 100_000; i++ {
		at := time.Unix(random.Int63n(8_000_000_000), 100_000_000+random.Int63n(900_000_000)).UTC() // to the year 2223
		if i < 1000 {
			at = time.Date(1970+i/2, time.February, 28+i%2, 23, 59, 59, 123456789, time.UTC)
		}
		want := at.Format("2006-01-02T15:04:05.000000000Z07:00")
		if got := timestamp(at.Unix(), int64(at.Nanosecond())); got != want {
			t.Fatalf("%s, want %s", got, want)
		}
	}
}

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
