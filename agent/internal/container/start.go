package container

import (
	"utilityvm/agent/internal/process"
	"utilityvm/agent/wire"
)

// Started says which process runs now, or why none does.
type Started func(pid int, err error)

// Start lets the first process go on, with its streams connected.
func (t *Table) Start(c *Container, stdio *process.Stdio, done Started) {
	if err := c.must("started", Created); err != nil {
		stdio.Reset()
		done(0, err)
		return
	}
	c.state = Starting
	t.processes.Hold(c.first, func() {})
	begun := func(err error) {
		if err == nil {
			c.said.whenOver(func(error) { t.running(c, stdio, done) })
			return
		}
		stdio.Reset()
		c.state = Created
		t.processes.Begin(c.first)
		done(0, err)
	}
	if c.spec.afterStart {
		e := t.errand(c)
		e.run(t.processes.Null(), func(err error) { e.clean(); begun(err) }, "start", c.ID)
		return
	}
	begun(t.release(c.ID))
}

// running connects the streams of the first process, which has become its program or has failed to: then it has said so, and has ended.
func (t *Table) running(c *Container, stdio *process.Stdio, done Started) {
	p, text := c.first, string(c.streams.First())
	failed := becameNothing(text)
	if failed && !p.Ended() {
		t.processes.Hold(p, func() { t.running(c, stdio, done) })
		return
	}
	if failed && p.Code() == 1 {
		stdio.Reset()
		t.processes.Begin(p)
		done(0, failure("crun start", 1, text))
		return
	}
	c.state = Running
	t.processes.Attach(p, c.streams, stdio)
	c.streams = nil
	done(p.PID(), nil)
	t.processes.Begin(p)
}

// release does what "crun start" does where nothing is to be run after it, and what it would take a program with a dozen libraries to do:
// the first process waits for a byte from a pipe, and a container whose pipe is gone counts as started.
func (t *Table) release(id string) error {
	pipe := crunState + "/" + id + "/exec.fifo"
	err := t.kernel.WriteFIFO(pipe, "\x00")
	if err == nil {
		err = t.kernel.RemoveTree(pipe)
	}
	if err != nil {
		return &wire.Error{Code: wire.Fail, Text: "starting the container's first process", Cause: err}
	}
	return nil
}

// Exec starts one more process, described by the JSON text of a process, with its streams connected.
func (t *Table) Exec(c *Container, what wire.Object, stdio *process.Stdio, done Started) {
	fail := func(err error) {
		stdio.Reset()
		done(0, err)
	}
	if err := c.must("given another process", Running); err != nil {
		fail(err)
		return
	}
	who, err := userName(what)
	if err != nil {
		fail(err)
		return
	}
	e := t.errand(c)
	t.loop.Beside(func() error {
		if err := resolveUser(t.kernel, c.spec.root, who, &what); err != nil {
			return err
		}
		if err := t.kernel.CreateFile(e.path+".json", what.Encode(), 0o600); err != nil {
			return &wire.Error{Code: wire.Fail, Text: "writing the process's description", Cause: err}
		}
		return nil
	}, func(err error) {
		if err == nil {
			err = t.exec(c, e, what, stdio, done)
		}
		if err != nil {
			e.clean()
			fail(err)
		}
	})
}

// exec lets crun start the process. An error that it returns is of the time before crun; later ones are told to done.
func (t *Table) exec(c *Container, e *errand, what wire.Object, stdio *process.Stdio, done Started) error {
	terminal, err := what.Bool("terminal")
	if err != nil {
		return err
	}
	words, err := e.open("exec", terminal, stdio.Wants())
	if err != nil {
		return err
	}
	words = append(words, "--detach", "--process", e.path+".json", c.ID)
	e.bear(words, false, c.ID, nil, nil, func(p *process.Process, err error) {
		if err != nil {
			stdio.Reset()
			done(0, err)
			return
		}
		t.processes.Attach(p, e.streams, stdio)
		done(p.PID(), nil)
		t.processes.Begin(p)
	})
	return nil
}
