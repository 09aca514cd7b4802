// Package logs is the agent's log: one record a line, kept in bounded memory until the host reads it.
package logs

import (
	"strconv"

	"utilityvm/agent/wire"
)

// Level says how much a record matters.
type Level int

// Levels, the least important first.
const (
	Trace Level = iota
	Debug
	Info
	Warning
	Error
	Fatal
	Panic
)

var names = []string{"trace", "debug", "info", "warning", "error", "fatal", "panic"}

// ParseLevel returns the level that word names.
func ParseLevel(word string) (Level, bool) {
	if word == "warn" {
		return Warning, true
	}
	for i, name := range names {
		if name == word {
			return Level(i), true
		}
	}
	return 0, false
}

// maxKept bounds what waits for the host, in bytes. Beyond it new records are dropped and counted.
const maxKept = 64 * 1024

// Field is one member of a record.
type Field struct{ Key, Value string }

// Stream is what carries the records.
type Stream interface {
	Ready()
	Shutdown(bits uint32)
}

// Clock returns the seconds since 1970 and the nanoseconds of the running one.
type Clock func() (seconds, nanoseconds int64)

// Logger writes records at or above its level. As a stream's user it sends them to the host.
type Logger struct {
	level   Level
	json    bool
	now     Clock
	kept    []byte
	dropped int
	stream  Stream
}

// New returns a logger that keeps its records until Attach. json false writes key=value lines.
func New(level Level, json bool, now Clock) *Logger {
	return &Logger{level: level, json: json, now: now}
}

// Attach sends records, those that were kept first, on a stream of which the logger is the user.
func (l *Logger) Attach(s Stream) {
	l.stream = s
	s.Ready()
}

// Write makes a record.
func (l *Logger) Write(level Level, msg string, fields ...Field) {
	if level < l.level {
		return
	}
	if len(l.kept) >= maxKept {
		l.dropped++
		return
	}
	if l.dropped > 0 {
		lost := Field{"dropped", strconv.Itoa(l.dropped)}
		l.dropped = 0
		l.append(Warning, "log records were dropped: the host did not read", []Field{lost})
	}
	l.append(level, msg, fields)
	if l.stream != nil {
		l.stream.Ready()
	}
}

func (l *Logger) append(level Level, msg string, fields []Field) {
	all := append([]Field{{"time", timestamp(l.now())}, {"level", names[level]}, {"msg", msg}}, fields...)
	for i, f := range all {
		switch {
		case !l.json && i > 0:
			l.kept = append(l.kept, ' ')
		case l.json && i > 0:
			l.kept = append(l.kept, ',')
		case l.json:
			l.kept = append(l.kept, '{')
		}
		if l.json {
			l.kept = append(wire.AppendString(l.kept, f.Key), ':')
		} else {
			l.kept = append(append(l.kept, f.Key...), '=')
		}
		l.kept = wire.AppendString(l.kept, f.Value)
	}
	if l.json {
		l.kept = append(l.kept, '}')
	}
	l.kept = append(l.kept, '\n')
}

// Opened implements hvsocket.User.
func (l *Logger) Opened() {}

// Receive implements hvsocket.User.
func (l *Logger) Receive(p []byte) int { return len(p) }

// Fill implements hvsocket.User.
func (l *Logger) Fill(p []byte) (int, bool) {
	n := copy(p, l.kept)
	l.kept = l.kept[:copy(l.kept, l.kept[n:])]
	return n, len(l.kept) > 0
}

// Shut implements hvsocket.User.
func (l *Logger) Shut(_, receives bool) {
	if !receives {
		l.stream.Shutdown(wire.ShutBoth)
	}
}

// Closed implements hvsocket.User.
func (l *Logger) Closed() { l.stream = nil }

// timestamp writes a time as RFC 3339 in UTC. Package time would do it as well, but formatting by layout is so much code
// that a fresh clone, which has to translate all that it runs, takes milliseconds for its first record.
func timestamp(seconds, nanoseconds int64) string {
	days, rest := seconds/86400, seconds%86400
	// Counted from 1 March of year 0, leap days come last in their year, century and 400 years.
	era, day := (days+719468)/146097, (days+719468)%146097
	year := (day - day/1460 + day/36524 - day/146096) / 365
	day -= 365*year + year/4 - year/100
	month := (5*day + 2) / 153
	day -= (153*month+2)/5 - 1
	if month += 3; month > 12 {
		month -= 12
		year++
	}
	b := append(pad(nil, era*400+year, 4), '-')
	b = append(pad(b, month, 2), '-')
	b = append(pad(b, day, 2), 'T')
	b = append(pad(b, rest/3600, 2), ':')
	b = append(pad(b, rest/60%60, 2), ':')
	b = append(pad(b, rest%60, 2), '.')
	return string(append(pad(b, nanoseconds, 9), 'Z'))
}

// pad appends n in so many digits.
func pad(b []byte, n int64, digits int) []byte {
	for i := 0; i < digits; i++ {
		b = append(b, '0')
	}
	for i := len(b) - 1; n > 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
	return b
}
