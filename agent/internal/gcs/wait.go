package gcs

import (
	"utilityvm/agent/internal/process"
	"utilityvm/agent/wire"
)

// wait answers when a process has ended, or when the time is up.
func wait(c *call) {
	q, err := wire.ParseProcessRequest(c.body)
	if !c.admit(&q.Request, err) {
		return
	}
	b := c.bridge
	if c.container != nil {
		c.container.HeardBy(b.tell)
	}
	var w *process.Waiter
	w = b.machine.Processes.Wait(c.owner(), q.ProcessID, q.TimeoutInMs, func(code int, err error) {
		delete(b.waiters, w)
		if err != nil {
			c.fail(err)
		} else {
			c.answer(wire.Response{Member: "ExitCode", Number: uint32(code)})
			if c.container != nil { // another bridge may have heard nothing of its end
				b.machine.Containers.TellEnd(c.container, b.tell)
			}
		}
	})
	if w != nil {
		b.waiters[w] = struct{}{}
	}
}
