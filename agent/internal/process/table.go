package process

import (
	"strconv"
	"syscall"

	"utilityvm/agent/internal/account"
	"utilityvm/agent/internal/loop"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// maxEnded is how many processes that nobody has waited for are remembered after their end.
const maxEnded = 1024

// Waiter hears of a process's end once, or of the end of its patience.
type Waiter struct {
	process *Process
	timer   *loop.Timer
	done    func(code int, err error)
}

// Process is one process that the host started, and its exit code until somebody has asked for it.
type Process struct {
	pid     int
	group   int    // the process group that it was started in
	owner   string // the container's id, that of the machine itself, or "" for the agent's own
	event   int    // becomes readable when it ends
	stdio   *Stdio
	console bool
	drains  bool // its end is told after what it wrote
	ended   bool
	held    func() // called at its end, which nobody else hears of until Begin
	told    bool
	code    int
	waiters []*Waiter
	ending  func() // called at its end, before anybody is told
	over    func() // called when those who wait were told
}

// Table holds the processes. It also reaps every orphan of the machine.
type Table struct {
	loop   *loop.Loop
	kernel sys.Kernel
	users  account.Read
	byPID  map[int]*Process
	ended  []*Process // those whose exit code nobody has asked for, oldest first
	strays strays
	null   int
}

// NewTable returns an empty table.
func NewTable(l *loop.Loop, kernel sys.Kernel) (*Table, error) {
	null, err := sys.OpenNull()
	if err != nil {
		return nil, err
	}
	return &Table{loop: l, kernel: kernel, users: kernel.ReadFile, byPID: make(map[int]*Process), null: null}, nil
}

// Null are descriptors of /dev/null, for a program's three streams.
func (t *Table) Null() [3]int { return [3]int{t.null, t.null, t.null} }

// Start starts a process on connected streams. When that fails the streams are reset.
func (t *Table) Start(spec *Spec, stdio *Stdio) (pid int, err error) {
	child, files, err := t.spawn(spec, stdio)
	if err != nil {
		stdio.Reset()
		return 0, err
	}
	p := &Process{pid: child.PID, group: child.PID, owner: wire.NullGUID, event: child.Event, stdio: stdio, console: spec.Console}
	if err := t.loop.Watch(p.event, sys.In, t); err != nil {
		t.loop.Stop(err) // without the event its end would go unnoticed
	}
	t.byPID[p.pid] = p
	stdio.attach(files, spec.Console)
	return p.pid, nil
}

// Launch starts a program whose streams are not ours to relay, and calls ended with its exit code. It returns the process's id.
func (t *Table) Launch(c *sys.Command, ended func(code int)) (pid int, err error) {
	child, err := t.kernel.Spawn(c)
	if err != nil {
		return 0, err
	}
	p := &Process{pid: child.PID, group: child.PID, event: child.Event, stdio: unconnected(t.loop)}
	p.waiters = []*Waiter{{process: p, done: func(code int, _ error) { ended(code) }}}
	t.byPID[p.pid] = p
	return p.pid, t.loop.Watch(p.event, sys.In, t)
}

// Ready implements loop.Source: a process has ended.
func (t *Table) Ready(uint32) { t.Reap() }

// Reap takes note of every child that has ended. Those that we did not start are orphans: they are only buried. It
// reports whether there were any.
func (t *Table) Reap() (some bool) {
	for ; ; some = true {
		pid, code, ok := sys.Reap()
		if !ok {
			return some
		}
		if p := t.byPID[pid]; p != nil && !p.ended {
			t.exited(p, code)
		} else {
			t.strays.note(pid, code)
		}
	}
}

func (t *Table) exited(p *Process, code int) {
	p.ended, p.code = true, code
	if p.event >= 0 {
		t.loop.Close(p.event)
		p.event = -1
	}
	if p.held != nil {
		p.held()
		return
	}
	p.stdio.running = false
	p.stdio.in.close()
	if p.ending != nil {
		p.ending()
	}
	if p.drains {
		p.stdio.drain(func() { t.tell(p) })
	} else {
		t.tell(p)
	}
}

// tell hands the exit code of an ended process to those who wait for it, or keeps it for the first who will.
func (t *Table) tell(p *Process) {
	p.told = true
	waiters := p.waiters
	p.waiters = nil
	for _, w := range waiters {
		t.loop.Cancel(w.timer)
		w.process = nil
		w.done(p.code, nil)
	}
	if len(waiters) > 0 && !p.stdio.parted {
		if t.byPID[p.pid] == p { // its number may have a new owner already
			delete(t.byPID, p.pid)
		}
	} else {
		if len(t.ended) == maxEnded {
			t.forget(t.ended[0])
		}
		t.ended = append(t.ended, p)
	}
	if p.over != nil {
		p.over()
	}
}

// forget drops an ended process. Its number may have a new owner already.
func (t *Table) forget(p *Process) {
	if t.byPID[p.pid] == p {
		delete(t.byPID, p.pid)
	}
	if p.stdio.parted {
		p.stdio.abandon()
	}
	for i, other := range t.ended {
		if other == p {
			t.ended = append(t.ended[:i], t.ended[i+1:]...)
			return
		}
	}
}

func (t *Table) find(owner string, pid uint32) (*Process, error) {
	if p := t.byPID[int(pid)]; p != nil && p.owner == owner {
		return p, nil
	}
	return nil, &wire.Error{Code: wire.NotFound, Text: "no such process: " + strconv.FormatUint(uint64(pid), 10)}
}

// Wait calls done with the exit code of pid, a process of owner, or with an error after ms milliseconds (wire.NoTimeout: never). The
// process is forgotten once somebody has its code, unless it can still be attached. The returned waiter is nil when done was called already.
func (t *Table) Wait(owner string, pid, ms uint32, done func(code int, err error)) *Waiter {
	p, err := t.find(owner, pid)
	if err != nil {
		done(0, err)
		return nil
	}
	if p.told {
		if !p.stdio.parted {
			t.forget(p)
		}
		done(p.code, nil)
		return nil
	}
	w := &Waiter{process: p, done: done}
	if ms != wire.NoTimeout {
		w.timer = t.loop.After(ms, func() {
			t.Cancel(w)
			done(0, &wire.Error{Code: wire.Timeout, Text: "timed out waiting for process " + strconv.Itoa(p.pid)})
		})
	}
	p.waiters = append(p.waiters, w)
	return w
}

// Cancel makes w hear nothing. Nil, and one that has been called, are fine.
func (t *Table) Cancel(w *Waiter) {
	if w == nil || w.process == nil {
		return
	}
	t.loop.Cancel(w.timer)
	list := w.process.waiters
	for i := range list {
		if list[i] == w {
			w.process.waiters = append(list[:i], list[i+1:]...)
			break
		}
	}
	w.process = nil
}

// Signal sends a signal to pid, SIGKILL for 0; with group to all of the process group that pid was started as.
func (t *Table) Signal(owner string, pid, signal uint32, group bool) error {
	p, err := t.find(owner, pid)
	if err != nil {
		return err
	}
	if signal > 64 {
		return &wire.Error{Code: wire.InvalidArg, Text: "no such signal: " + strconv.FormatUint(uint64(signal), 10)}
	}
	if signal == 0 {
		signal = uint32(syscall.SIGKILL)
	}
	text := "cannot signal process " + strconv.Itoa(p.pid)
	if p.ended {
		return &wire.Error{Code: wire.NotFound, Text: text, Cause: syscall.ESRCH}
	}
	target := p.pid
	if group {
		target = -p.group
	}
	if err := t.kernel.Kill(target, int(signal)); err != nil {
		return &wire.Error{Code: wire.Fail, Text: text, Cause: err}
	}
	return nil
}

// Resize sets the size of the terminal of pid in characters.
func (t *Table) Resize(owner string, pid uint32, height, width uint32) error {
	p, err := t.find(owner, pid)
	switch {
	case err != nil:
		return err
	case height > 0xffff || width > 0xffff:
		return &wire.Error{Code: wire.InvalidArg, Text: "console size out of range"}
	case p.ended:
		return nil
	case !p.console:
		return &wire.Error{Code: wire.Fail, Text: "pid: " + strconv.Itoa(p.pid) + ", is not a tty and cannot be resized"}
	case p.stdio.out.fd < 0:
		return nil // hung up, which ends it
	}
	if err := sys.Resize(p.stdio.out.fd, uint16(height), uint16(width)); err != nil {
		return &wire.Error{Code: wire.Fail, Text: "cannot resize the terminal of process " + strconv.Itoa(p.pid), Cause: err}
	}
	return nil
}

// KillAll kills every process that runs.
func (t *Table) KillAll() {
	for pid, p := range t.byPID {
		if !p.ended {
			_ = t.kernel.Kill(pid, int(syscall.SIGKILL))
		}
	}
}
