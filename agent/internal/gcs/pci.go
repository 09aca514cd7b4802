package gcs

import (
	"strconv"

	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// pciDevice waits for a device of the host that has come to the guest; what becomes of it is its driver's matter.
func pciDevice(c *call, q *wire.Modify) {
	d, err := wire.ParsePCI(q.Settings)
	switch {
	case err != nil:
		c.fail(err)
	case q.RequestType != "Add":
		c.refuseRequest(q)
	case !d.Placed:
		c.fail(&wire.Error{Code: wire.NotImpl, Text: "VMBusGUID " + d.VMBusGUID + ": this guest has no VMBus; a device is found by its Place"})
	default:
		k := c.bridge.machine.Kernel
		c.beside(q, func() error { return awaitPCI(k, d.Place) })
	}
}

// awaitPCI waits until the kernel has found the device in a place behind the host's bridges.
func awaitPCI(k sys.Kernel, place uint32) error {
	what := "PCI device at place " + strconv.FormatUint(uint64(place), 10)
	_, err := appear(k, "pci", what, maxAppear, func() string { return findPlace(k, place) })
	return err
}
