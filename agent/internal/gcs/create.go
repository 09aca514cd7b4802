package gcs

import (
	"utilityvm/agent/internal/logs"
	"utilityvm/agent/wire"
)

// create makes a container whose first process waits to be started.
func create(c *call) {
	q, err := wire.ParseCreation(c.body)
	c.activity = q.ActivityID
	if err == nil && q.ContainerID == wire.NullGUID {
		err = &wire.Error{Code: wire.NotImpl, Text: "the utility VM needs no Create"}
	}
	var d wire.Document
	if err == nil {
		d, err = wire.ParseDocument(q.Config)
	}
	if err != nil {
		c.fail(err)
		return
	}
	m := c.bridge.machine
	m.Containers.Create(q.ContainerID, q.ActivityID, &d, c.bridge.tell, func(err error) {
		if err == nil {
			m.Log.Write(logs.Debug, "container created", logs.Field{Key: "container", Value: q.ContainerID})
		}
		c.answer(wire.Response{Err: err})
	})
}

// start does nothing: a container's first process starts with the first ExecuteProcess.
func start(c *call) {
	q, err := wire.ParseRequest(c.body)
	c.activity = q.ActivityID
	if err == nil && q.ContainerID == wire.NullGUID {
		err = &wire.Error{Code: wire.NotImpl, Text: "the utility VM needs no Start"}
	}
	c.answer(wire.Response{Err: err})
}
