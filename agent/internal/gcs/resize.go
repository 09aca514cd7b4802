package gcs

import "utilityvm/agent/wire"

// resize sets the size of a process's terminal.
func resize(c *call) {
	q, err := wire.ParseProcessRequest(c.body)
	if c.admit(&q.Request, err) {
		c.answer(wire.Response{Err: c.bridge.machine.Processes.Resize(c.owner(), q.ProcessID, q.Height, q.Width)})
	}
}
