package gcs

import "utilityvm/agent/wire"

// constraints changes a container's limits. The type of the request is not looked at.
func constraints(c *call, q *wire.Modify) {
	settings, err := wire.ParseObject(q.Settings)
	if err == nil && settings.Text("Linux") == "" {
		err = invalid("ContainerConstraints: Linux is missing")
	}
	if err != nil {
		c.fail(err)
		return
	}
	c.bridge.machine.Containers.Update(c.container, settings.Text("Linux"), func(err error) { c.answer(wire.Response{Err: err}) })
}

// containerState pauses a container, or lets it go on.
func containerState(c *call, q *wire.Modify) {
	settings, err := wire.ParseObject(q.Settings)
	state := ""
	if err == nil {
		state, err = settings.String("State")
	}
	if err == nil && state != "Paused" && state != "Running" {
		err = invalid("ContainerState: State must be Paused or Running: '" + state + "'")
	}
	if err != nil {
		c.fail(err)
		return
	}
	c.bridge.machine.Containers.Pause(c.container, state == "Paused", func(err error) { c.answer(wire.Response{Err: err}) })
}
