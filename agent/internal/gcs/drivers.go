package gcs

import (
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// ofContainers are the groups of drivers that the layers, the disk and the network of a container may need.
var ofContainers = []string{"scsi", "ext4", "erofs", "pmem", "overlay", "net"}

// drivers loads what is otherwise loaded when the first device of its kind comes: those who go on from a template have it then.
func drivers(c *call, q *wire.Modify) {
	if q.RequestType != "Add" {
		c.refuseRequest(q)
		return
	}
	k := c.bridge.machine.Kernel
	c.beside(q, func() error { return loadAll(k, ofContainers) })
}

// loadAll loads the modules of groups, one after another.
func loadAll(k sys.Kernel, groups []string) error {
	for _, group := range groups {
		if err := sys.LoadModules(k, group); err != nil {
			return err
		}
	}
	return nil
}
