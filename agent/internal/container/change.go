package container

import (
	"utilityvm/agent/wire"
)

// Update changes the container's limits; resources are the JSON text of a specification's.
func (t *Table) Update(c *Container, resources string, done func(error)) {
	if err := c.must("given other limits", Created, Running, Paused); err != nil {
		done(err)
		return
	}
	e := t.errand(c)
	if err := t.kernel.CreateFile(e.path+".json", resources, 0o600); err != nil {
		done(&wire.Error{Code: wire.Fail, Text: "writing the limits", Cause: err})
		return
	}
	e.run(t.processes.Null(), func(err error) { e.clean(); done(err) }, "update", "--resources", e.path+".json", c.ID)
}

// Pause stops all of the container's processes where they are, or lets them go on.
func (t *Table) Pause(c *Container, paused bool, done func(error)) {
	from, to, what := Running, Paused, "paused"
	if !paused {
		from, to, what = Paused, Running, "resumed"
	}
	if c.state == to {
		done(nil)
		return
	}
	if err := c.must(what, from); err != nil {
		done(err)
		return
	}
	c.state = Switching
	t.loop.Beside(func() error {
		if err := t.kernel.Freeze(c.cgroup(), paused); err != nil {
			return &wire.Error{Code: wire.Fail, Text: "container " + c.ID + " could not be " + what, Cause: err}
		}
		return nil
	}, func(err error) {
		switch {
		case c.state != Switching: // it has ended meanwhile
			err = c.must(what)
		case err != nil:
			c.state = from
		default:
			c.state = to
		}
		done(err)
	})
}
