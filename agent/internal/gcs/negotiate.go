package gcs

import (
	"utilityvm/agent/internal/logs"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// negotiate agrees on the protocol's version. It is the first request, and the last of its kind.
func negotiate(c *call) {
	q, err := wire.ParseNegotiate(c.body)
	c.activity = q.ActivityID
	if err != nil {
		c.fail(err)
		return
	}
	if q.MaximumVersion < wire.ProtocolVersion || q.MinimumVersion > wire.ProtocolVersion {
		c.fail(&wire.Error{Code: wire.UnsupportedProtocolVersion, Text: "the offered range of versions does not contain 4"})
		return
	}
	c.bridge.handlers = afterNegotiation
	c.bridge.machine.Log.Write(logs.Info, "bridge negotiated")
	boot := c.bridge.machine.Boot
	boot.Now = sys.Uptime()
	c.answer(wire.Response{Negotiate: true, Boot: boot})
}
