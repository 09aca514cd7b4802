package gcs

import "utilityvm/agent/wire"

// shutdownGraceful writes file systems to their disks and powers the VM off. There is no answer.
func shutdownGraceful(c *call) { c.shutdown(true) }

// shutdownForced powers the VM off at once. There is no answer.
func shutdownForced(c *call) { c.shutdown(false) }

func (c *call) shutdown(sync bool) {
	q, err := wire.ParseRequest(c.body)
	if c.admit(&q, err) {
		c.bridge.machine.PowerOff(sync)
	}
}
