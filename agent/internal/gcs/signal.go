package gcs

import "utilityvm/agent/wire"

// signal sends a signal to a process.
func signal(c *call) {
	q, err := wire.ParseProcessRequest(c.body)
	if c.admit(&q.Request, err) {
		c.answer(wire.Response{Err: c.bridge.machine.Processes.Signal(q.ProcessID, q.Signal, q.Group)})
	}
}
