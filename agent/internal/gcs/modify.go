package gcs

import (
	"utilityvm/agent/internal/logs"
	"utilityvm/agent/wire"
)

// resource answers a request about one type of resource, at once or later.
type resource func(c *call, q *wire.Modify)

// resources are the types that the host may add, update and remove, each in a file of its own.
var resources = map[string]resource{
	"CombinedLayers":         combinedLayers,
	"Drivers":                drivers,
	"MappedDirectory":        mappedDirectory,
	"MappedVirtualDisk":      mappedDisk,
	"SCSIDevice":             scsiDevice,
	"VPCIDevice":             pciDevice,
	"Network":                network,
	"VPMemDevice":            pmemDevice,
	"VirtualMachineIdentity": identity,
}

// inside are the types that a container has.
var inside = map[string]resource{
	"ContainerConstraints": constraints,
	"ContainerState":       containerState,
}

// modify changes a resource of the utility VM or of a container.
func modify(c *call) {
	q, err := wire.ParseModify(c.body)
	if !c.admit(&q.Request, err) {
		return
	}
	table, other, refusal := resources, inside, "the ResourceType \""+q.ResourceType+"\" is not supported for UVM"
	if c.container != nil {
		table, other, refusal = inside, resources, "the ResourceType \""+q.ResourceType+"\" is not supported for containers"
	}
	change, known := table[q.ResourceType]
	if !known {
		if other[q.ResourceType] == nil {
			refusal = "invalid ResourceType '" + q.ResourceType + "'"
		}
		c.fail(&wire.Error{Code: wire.NotImpl, Text: refusal})
		return
	}
	change(c, &q)
}

// refuseRequest answers a request type that the resource does not know.
func (c *call) refuseRequest(q *wire.Modify) {
	c.fail(&wire.Error{Code: wire.NotImpl, Text: "the RequestType \"" + q.RequestType + "\" is not supported for " + q.ResourceType})
}

// beside carries out work that may wait for the kernel, beside the loop, and answers with what comes of it.
func (c *call) beside(q *wire.Modify, work func() error) {
	m := c.bridge.machine
	kind, resource := q.RequestType, q.ResourceType
	m.Loop.Beside(work, func(err error) {
		if err != nil {
			c.fail(err)
			return
		}
		m.Log.Write(logs.Debug, "resource changed", logs.Field{Key: "request", Value: kind}, logs.Field{Key: "type", Value: resource})
		c.answer(wire.Response{})
	})
}
