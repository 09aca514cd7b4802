package gcs

import (
	"utilityvm/agent/internal/logs"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// nanosecondsInSecond is one more than the largest fraction of a second.
const nanosecondsInSecond = 1_000_000_000

// identity makes the machine, which goes on from a template's memory, one of its own.
func identity(c *call, q *wire.Modify) {
	if q.RequestType != "Update" {
		c.refuseRequest(q)
		return
	}
	err := become(c.bridge.machine.Kernel, q.Settings)
	if err == nil {
		c.bridge.machine.Log.Write(logs.Debug, "the machine goes on as another")
	}
	c.answer(wire.Response{Err: err})
}

// become carries out what the settings say. The time is now, which is not what the template's clock goes on from.
func become(k sys.Kernel, settings string) error {
	o, err := wire.ParseObject(settings)
	if err != nil {
		return err
	}
	seconds, err := o.Uint32("Seconds")
	if err != nil {
		return err
	}
	nanoseconds, err := o.Uint32("Nanoseconds")
	if err != nil {
		return err
	}
	if seconds == 0 || nanoseconds >= nanosecondsInSecond {
		return invalid("VirtualMachineIdentity: Seconds and Nanoseconds are a time since 1970")
	}
	return k.SetClock(int64(seconds), int64(nanoseconds))
}
