package process

import (
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// maxStrays is how many orphans are remembered while a process is about to be adopted.
const maxStrays = 4096

// strays are the exit codes of orphans, kept while somebody may still say whose they were: a process that another program
// starts for us can end before we know its number.
type strays struct {
	expected int
	codes    map[int]int
}

func (s *strays) note(pid, code int) {
	if s.expected > 0 && len(s.codes) < maxStrays {
		s.codes[pid] = code
	}
}

// Expect begins to remember orphans, until the returned function is called: before that, Adopt finds those that have ended.
func (t *Table) Expect() (enough func()) {
	if t.strays.expected++; t.strays.codes == nil {
		t.strays.codes = make(map[int]int)
	}
	return func() {
		if t.strays.expected--; t.strays.expected == 0 {
			t.strays.codes = nil
		}
	}
}

// Streams are the standard streams of a process that another program starts for us: pipes, or a terminal that the program hands over.
type Streams struct {
	files    files
	listener int    // -1 without a terminal, and after it has come
	first    []byte // of its errors, or of what its terminal shows, taken by First
}

// maxFirst is the most that First takes, in bytes.
const maxFirst = 4096

// First returns the first of what the process has said of errors until now, or its terminal shows. It is relayed all the same.
func (s *Streams) First() []byte {
	fd := s.files.ours[2]
	if s.isConsole() {
		fd = s.files.ours[0]
	}
	for fd >= 0 && len(s.first) < maxFirst {
		var piece [maxFirst]byte
		n, errno := sys.Read(fd, piece[:maxFirst-len(s.first)])
		if errno != 0 || n == 0 {
			break
		}
		s.first = append(s.first, piece[:n]...)
	}
	return s.first
}

// Streams makes pipes for the streams that are wanted; the others are /dev/null.
func (t *Table) Streams(wanted Wanted) (*Streams, error) {
	s := &Streams{listener: -1}
	if err := s.files.open(wanted, t.null); err != nil {
		s.files.closeAll(false)
		return nil, &wire.Error{Code: wire.Fail, Text: "making pipes", Cause: err}
	}
	return s, nil
}

// Console makes a socket at path, by which the program hands the terminal over.
func (t *Table) Console(path string) (*Streams, error) {
	s := &Streams{}
	s.files.ours, s.files.child = [3]int{-1, -1, -1}, t.Null()
	var err error
	if s.listener, err = sys.ListenLocal(path); err != nil {
		return nil, &wire.Error{Code: wire.Fail, Text: "listening at " + path, Cause: err}
	}
	return s, nil
}

// Theirs are the descriptors for the program that starts the process.
func (s *Streams) Theirs() [3]int { return s.files.child }

// Started is to be called when the program has started the process: its descriptors are closed, and the terminal is taken over.
func (s *Streams) Started() error {
	s.files.closeAll(true)
	s.files.opened = nil
	for _, fd := range s.files.ours {
		if fd >= 0 {
			s.files.opened = append(s.files.opened, fd)
		}
	}
	if s.listener < 0 {
		return nil
	}
	fd, err := sys.TakeFd(s.listener)
	sys.Close(s.listener)
	s.listener = -1
	if err != nil {
		return &wire.Error{Code: wire.Fail, Text: "no terminal was handed over", Cause: err}
	}
	s.files.ours = [3]int{fd, fd, -1}
	s.files.opened = []int{fd}
	return nil
}

// isConsole reports whether the process has a terminal.
func (s *Streams) isConsole() bool { return s.files.ours[0] >= 0 && s.files.ours[0] == s.files.ours[1] }

// Close gives up streams that are not attached.
func (s *Streams) Close() {
	s.files.closeAll(false)
	s.files.opened = nil
	if s.listener >= 0 {
		sys.Close(s.listener)
		s.listener = -1
	}
}

// Adopt takes over a process of a container that another program has started and whose orphan it is, between Expect and the end of that.
// ending is called at its end, over after those who wait were told.
func (t *Table) Adopt(owner string, pid int, ending, over func()) (*Process, error) {
	p := &Process{pid: pid, group: pid, owner: owner, event: -1, stdio: unconnected(t.loop), drains: true, ending: ending, over: over}
	code, ended := t.strays.codes[pid]
	if ended {
		delete(t.strays.codes, pid)
	} else {
		event, err := t.kernel.OpenProcess(pid)
		if err != nil {
			return nil, &wire.Error{Code: wire.Fail, Text: "a process that was started is not there", Cause: err}
		}
		if p.event, err = event, t.loop.Watch(event, sys.In, t); err != nil {
			sys.Close(event)
			return nil, &wire.Error{Code: wire.Fail, Text: "watching a process", Cause: err}
		}
	}
	if group, err := t.kernel.Group(pid); err == nil && group > 1 {
		p.group = group // of the program that has started it, which is its own session's first: crun makes no group for it
	}
	if old := t.byPID[pid]; old != nil {
		t.forget(old)
	}
	t.byPID[pid] = p
	if ended {
		p.ended, p.code = true, code
	}
	return p, nil
}

// Attach connects the streams of an adopted process with the host's. What the host does not ask for is closed, or dropped.
func (t *Table) Attach(p *Process, s *Streams, stdio *Stdio) {
	f := s.files
	p.console = s.isConsole()
	if !p.console && stdio.in.stream == nil && f.ours[0] >= 0 {
		sys.Close(f.ours[0])
		f.ours[0] = -1
	}
	s.files.opened = nil
	p.stdio = stdio
	if stdio.err.first = s.first; p.console {
		stdio.out.first, stdio.err.first = s.first, nil
	}
	stdio.attach(&f, p.console)
	for _, o := range []*output{stdio.out, stdio.err} {
		if len(o.first) > 0 {
			o.Ready(0) // nothing else will tell of it
		}
	}
}

// Hold lets nobody but ended hear of an adopted process's end until Begin.
func (t *Table) Hold(p *Process, ended func()) { p.held = ended }

// Begin lets an adopted process's end be told, which may have come already.
func (t *Table) Begin(p *Process) {
	p.held = nil
	if p.ended {
		t.exited(p, p.code)
	}
}

// Hurry lets the ends of an owner's processes be told though the host has not read their output: that of pid, or with 0 all.
func (t *Table) Hurry(owner string, pid uint32) {
	for number, p := range t.byPID {
		if p.owner != owner || pid != 0 && int(pid) != number {
			continue
		}
		p.drains = false
		if p.ended && !p.told && p.stdio.drained != nil {
			p.stdio.drained = nil
			t.tell(p)
		}
	}
}

// PID returns the number of the process.
func (p *Process) PID() int { return p.pid }

// Ended reports whether the process has ended.
func (p *Process) Ended() bool { return p.ended }

// Code returns the exit code of a process that has ended.
func (p *Process) Code() int { return p.code }

// Forget drops all of an owner's processes that have ended.
func (t *Table) Forget(owner string) {
	for _, p := range t.byPID {
		if p.owner == owner && p.told {
			t.forget(p)
		}
	}
}
