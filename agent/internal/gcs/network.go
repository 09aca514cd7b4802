package gcs

import "utilityvm/agent/wire"

// network adds an adapter to a network namespace, or takes it out.
func network(c *call, q *wire.Modify) {
	a, err := wire.ParseAdapter(q.Settings)
	if err != nil {
		c.fail(err)
		return
	}
	m := c.bridge.machine
	switch q.RequestType {
	case "Add":
		c.beside(q, func() error { return m.Networks.Add(m.Kernel, &a) })
	case "Remove":
		c.beside(q, func() error { return m.Networks.Remove(m.Kernel, &a) })
	default:
		c.refuseRequest(q)
	}
}
