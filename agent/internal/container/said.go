package container

import (
	"strconv"
	"strings"
	"syscall"

	"utilityvm/agent/internal/loop"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

const (
	// maxSaid is the most of what crun says that is kept, in bytes; maxTold is the most that is told on.
	maxSaid = 65536
	maxTold = 4096
)

// said is what crun says of a failure, in a pipe. Its other end is crun's, and that of the process which crun starts until it becomes the
// program: the kernel closes it then. So its end says that the program runs; or that it never will, and then there is a reason before it.
type said struct {
	verb         string
	loop         *loop.Loop
	ours, theirs int
	text         []byte
	over         bool
	then         func(error)
	late         *loop.Timer
}

// listen makes the pipe for one run of crun.
func listen(l *loop.Loop, verb string) (*said, error) {
	s := &said{verb: verb, loop: l, ours: -1, theirs: -1}
	var err error
	if s.ours, s.theirs, err = sys.Pipe(true); err == nil {
		err = l.Watch(s.ours, sys.In, s)
	}
	if err != nil {
		s.close()
		return nil, &wire.Error{Code: wire.Fail, Text: "a pipe for what crun says", Cause: err}
	}
	return s, nil
}

// path is where crun finds its end.
func (s *said) path() string { return ownFile(s.theirs) }

// handed says that crun has ended: who has the other end has it of crun.
func (s *said) handed() {
	if s.theirs >= 0 {
		sys.Close(s.theirs)
		s.theirs = -1
	}
}

// Ready implements loop.Source.
func (s *said) Ready(uint32) {
	var piece [1024]byte
	for !s.over {
		n, errno := sys.Read(s.ours, piece[:])
		if errno == sys.Again {
			return
		}
		if errno != 0 || n == 0 {
			s.end()
			return
		}
		if room := maxSaid - len(s.text); n > room {
			n = room
		}
		s.text = append(s.text, piece[:n]...)
	}
}

// whenOver calls then at the end, with why the program does not run. A program that takes too long to be read counts as running.
func (s *said) whenOver(then func(error)) {
	s.then = then
	if s.over {
		s.tell()
		return
	}
	s.late = s.loop.After(patience, s.end)
}

func (s *said) end() {
	s.close()
	s.tell()
}

func (s *said) tell() {
	then := s.then
	s.then = nil
	switch {
	case then == nil:
	case refusal(string(s.text)) != "":
		then(s.failure(1))
	default: // other words are of what crun can do without
		then(nil)
	}
}

// close gives the pipe up; nil, which there is when it could not be made, is fine.
func (s *said) close() {
	if s == nil || s.over {
		return
	}
	s.over = true
	s.loop.Cancel(s.late)
	s.handed()
	if s.ours >= 0 {
		s.loop.Close(s.ours)
	}
}

// failure makes an error of crun's exit code and of what it has said until now.
func (s *said) failure(code int) error {
	s.Ready(0)
	return failure(s.verb, code, string(s.text))
}

// becomingFailed begins what crun says, on the container's own errors and nowhere else, when the first process fails to become its program.
const becomingFailed = "exec container process"

// colours are what crun puts round its words on a terminal.
var colours = strings.NewReplacer("\x1b[1;31m", "", "\x1b[0m", "")

// linesOf returns what crun has logged, without dates and colours.
func linesOf(log string) (lines []string) {
	log = colours.Replace(log)
	for _, line := range strings.Split(log, "\n") {
		if _, text, dated := strings.Cut(line, "Z: "); dated {
			line = text
		}
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// refusal returns the line by which the kernel's refusal to run the program is told, in the place of what crun had started for it, or "".
func refusal(log string) string {
	for _, line := range linesOf(log) {
		if strings.HasPrefix(line, "exec: ") || strings.HasPrefix(line, becomingFailed) {
			return line
		}
	}
	return ""
}

// becameNothing reports whether text, the first that a container has said, is of a first process that did not become its program.
func becameNothing(text string) bool {
	lines := linesOf(text)
	return len(lines) > 0 && strings.HasPrefix(lines[0], becomingFailed)
}

// failure makes an error of crun's words.
func failure(verb string, code int, log string) error {
	text, kind := strings.Join(linesOf(log), "; "), wire.Fail
	if refused := refusal(log); refused != "" {
		text, kind = refused, kindOf(refused)
	}
	if len(text) > maxTold {
		text = text[:maxTold]
	}
	switch {
	case kind != wire.Fail:
	case strings.Contains(text, "not found in $PATH"):
		kind = wire.FileNotFound
	case strings.Contains(text, "open executable"):
		kind = wire.AccessDenied
	case strings.Contains(text, "chdir `") && (strings.HasSuffix(text, "No such file or directory") || strings.HasSuffix(text, "Not a directory")):
		kind = wire.PathNotFound
	case code == 128+int(syscall.SIGKILL):
		text = "did not end within " + strconv.Itoa(patience/1000) + " s, and was killed; " + text
	case text == "":
		text = "exit code " + strconv.Itoa(code)
	}
	return &wire.Error{Code: kind, Text: verb + ": " + text}
}

// kindOf returns the kind of a refusal. crun has looked for the program before: what is missing is what was to run it.
func kindOf(refused string) wire.HResult {
	switch {
	case strings.HasSuffix(refused, "No such file or directory"):
		return wire.LoaderNotFound
	case strings.HasSuffix(refused, "Exec format error"):
		return wire.BadFormat
	}
	return wire.AccessDenied
}
