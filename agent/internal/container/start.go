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
	begun := func(err error) {
		switch {
		case err != nil:
			stdio.Reset()
			if c.state == Starting {
				c.state = Created
			}
			done(0, err)
		case c.first.Ended(): // and its end was told
			stdio.Reset()
			done(0, c.must("started", Created))
		default:
			c.state = Running
			t.processes.Attach(c.first, c.streams, stdio)
			c.streams = nil
			done(c.first.PID(), nil)
		}
	}
	if c.spec.afterStart {
		e := t.errand(c)
		e.run(t.processes.Null(), func(err error) { e.clean(); begun(err) }, "start", c.ID)
		return
	}
	begun(t.release(c.ID))
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
	e.bear(words, c.ID, nil, nil, func(p *process.Process, err error) {
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
