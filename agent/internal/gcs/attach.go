package gcs

import (
	"utilityvm/agent/internal/process"
	"utilityvm/agent/wire"
)

// attach gives the host the streams of a process that an earlier host has started, before the machine was saved.
func attach(c *call) {
	q, err := wire.ParseAttach(c.body)
	if !c.admit(&q.Request, err) {
		return
	}
	m := c.bridge.machine
	state, err := m.Processes.Reattach(c.owner(), q.ProcessID, m.Dialler, process.Ports{In: q.StdIn, Out: q.StdOut, Err: q.StdErr})
	c.answer(wire.Response{State: state, Err: err})
}
