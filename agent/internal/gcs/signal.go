package gcs

import "utilityvm/agent/wire"

// signal sends a signal to a process.
func signal(c *call) {
	q, err := wire.ParseProcessRequest(c.body)
	if !c.admit(&q.Request, err) {
		return
	}
	m := c.bridge.machine
	if c.container != nil {
		err = m.Containers.Signal(c.container, q.ProcessID, q.Signal, q.Group)
	} else {
		err = m.Processes.Signal(c.owner(), q.ProcessID, q.Signal, q.Group)
	}
	c.answer(wire.Response{Err: err})
}
