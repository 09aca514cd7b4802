package gcs

import (
	"strconv"
	"strings"

	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

const (
	pciDevices = "/sys/bus/pci/devices"
	// placesOnBridge is how many devices the host puts on one bridge: device n is in place n % placesOnBridge + 1 of
	// bridge n / placesOnBridge. The bridges are the PCI devices from firstBridge on.
	placesOnBridge = 31
	firstBridge    = 0x10
	lastBridge     = 0x1e
)

// pmemDevice mounts a layer on persistent memory, or takes it off; the device stays.
func pmemDevice(c *call, q *wire.Modify) {
	d, err := wire.ParsePMem(q.Settings)
	if err != nil {
		c.fail(err)
		return
	}
	k := c.bridge.machine.Kernel
	switch {
	case d.Mapped:
		c.fail(&wire.Error{Code: wire.NotImpl, Text: "MappingInfo: only whole devices are supported"})
	case d.Verity:
		c.fail(&wire.Error{Code: wire.NotImpl, Text: "VerityInfo is not supported"})
	case q.RequestType == "Add":
		c.beside(q, func() error { return MountPMem(k, d.DeviceNumber, d.MountPath) })
	case q.RequestType == "Remove":
		c.beside(q, func() error { return unmount(k, d.MountPath) })
	default:
		c.refuseRequest(q)
	}
}

// MountPMem loads the drivers, waits for a device and mounts the file system on it to read, with DAX if that can.
func MountPMem(k sys.Kernel, number uint32, target string) error {
	if err := sys.LoadModules(k, "pmem"); err != nil {
		return err
	}
	what := "persistent memory device " + strconv.Itoa(int(number))
	name, err := appearBlock(k, what, maxAppear, func() string { return findPMem(k, number) })
	if err != nil {
		return err
	}
	m := blockMount{device: "/dev/" + name, target: target, readOnly: true, dax: true}
	return m.do(k)
}

// findPlace returns the folder of the PCI device in a place behind the host's bridges, "" while there is none.
func findPlace(k sys.Kernel, number uint32) string {
	const digits = "0123456789abcdef"
	bridge, place := firstBridge+number/placesOnBridge, number%placesOnBridge+1
	if bridge > lastBridge {
		return ""
	}
	ending := ":" + digits[place>>4:place>>4+1] + digits[place&15:place&15+1] + ".0"
	return child(k, pciDevices+"/0000:00:"+digits[bridge>>4:bridge>>4+1]+digits[bridge&15:bridge&15+1]+".0",
		func(name string) bool { return strings.HasSuffix(name, ending) })
}

// findPMem returns the name of the block device of the persistent memory in a place, "" while there is none.
func findPMem(k sys.Kernel, number uint32) string {
	folder := findPlace(k, number)
	for _, step := range []string{"virtio", "ndbus", "region", "namespace", "block"} {
		if folder == "" {
			return ""
		}
		step := step
		folder = child(k, folder, func(name string) bool {
			return strings.HasPrefix(name, step) && (step == "block" || name != step && name[len(step)] >= '0' && name[len(step)] <= '9')
		})
	}
	if folder == "" {
		return ""
	}
	name := child(k, folder, func(string) bool { return true })
	return name[strings.LastIndexByte(name, '/')+1:]
}

// child returns the path of the first entry in a folder that fits, "" when there is none.
func child(k sys.Kernel, folder string, fits func(name string) bool) string {
	names, _ := k.ReadDir(folder)
	for _, name := range names {
		if fits(name) {
			return folder + "/" + name
		}
	}
	return ""
}
