package gcs

import "utilityvm/agent/wire"

// deleteState forgets a container that has ended.
func deleteState(c *call) {
	q, err := wire.ParseRequest(c.body)
	if !c.admitInside(&q, err) {
		return
	}
	c.bridge.machine.Containers.Delete(c.container, func(err error) { c.answer(wire.Response{Err: err}) })
}
