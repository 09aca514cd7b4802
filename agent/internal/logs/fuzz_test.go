package logs

import (
	"encoding/json"
	"strings"
	"testing"
)

// FuzzRecord writes records of whatever text: each is one line of JSON, and what waits for the host stays bounded.
func FuzzRecord(f *testing.F) {
	f.Add("a \"b\"", "pid", "7")
	f.Add("\x00\xff\n\u2028", "level", "\x1b[2J")
	f.Fuzz(func(t *testing.T, msg, key, value string) {
		l := New(Trace, true, clock)
		for i := 0; i < 3; i++ {
			l.Write(Info, msg, Field{key, value})
		}
		text := drain(l)
		if len(text) > maxKept+6*(len(msg)+len(key)+len(value))+1000 {
			t.Fatalf("%d bytes were kept", len(text))
		}
		for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
			if !json.Valid([]byte(line)) {
				t.Fatalf("no JSON: %q", line)
			}
		}
	})
}
