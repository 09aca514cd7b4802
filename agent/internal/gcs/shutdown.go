package gcs

import "utilityvm/agent/wire"

// shutdownGraceful asks a container to end. For the machine it writes file systems to their disks and powers it off, without an answer.
func shutdownGraceful(c *call) { c.shutdown(true) }

// shutdownForced makes a container end. For the machine it powers it off at once, without an answer.
func shutdownForced(c *call) { c.shutdown(false) }

func (c *call) shutdown(graceful bool) {
	q, err := wire.ParseRequest(c.body)
	if !c.admit(&q, err) {
		return
	}
	if c.container != nil {
		c.answer(wire.Response{Err: c.bridge.machine.Containers.Shutdown(c.container, graceful)})
		return
	}
	c.bridge.machine.PowerOff(graceful)
}
