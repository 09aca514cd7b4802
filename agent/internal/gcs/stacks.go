package gcs

import (
	"runtime"

	"utilityvm/agent/wire"
)

// dumpStacks tells what every goroutine of the agent is doing.
func dumpStacks(c *call) {
	q, err := wire.ParseRequest(c.body)
	if !c.admitMachine(&q, err) {
		return
	}
	text := make([]byte, wire.MaxText)
	c.answer(wire.Response{Member: "GuestStacks", Text: string(text[:runtime.Stack(text, true)])})
}
