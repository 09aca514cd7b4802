package gcs

import (
	"sort"
	"strconv"
	"strings"
	"syscall"

	"utilityvm/agent/internal/loop"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

const (
	scsiHosts   = "/sys/class/scsi_host"
	scsiDevices = "/sys/bus/scsi/devices"
	scsiScans   = "/sys/module/scsi_mod/parameters/scan"
)

// mappedDisk mounts a SCSI disk, or takes it off and out; an update says that it has grown.
func mappedDisk(c *call, q *wire.Modify) {
	d, err := wire.ParseDisk(q.Settings)
	if err != nil {
		c.fail(err)
		return
	}
	m := c.bridge.machine
	k := m.Kernel
	switch {
	case d.Encrypted:
		c.fail(&wire.Error{Code: wire.NotImpl, Text: "Encrypted disks are not supported"})
	case d.Partition != 0:
		c.fail(&wire.Error{Code: wire.NotImpl, Text: "Partition: only whole disks are supported"})
	case q.RequestType == "Add":
		c.beside(q, func() error { return addDisk(k, &m.disks, &d) })
	case q.RequestType == "Remove":
		c.beside(q, func() error { return removeDisk(k, &d) })
	case q.RequestType == "Update":
		c.beside(q, func() error { return growDisk(k, &d) })
	default:
		c.refuseRequest(q)
	}
}

// scsiDevice takes a disk out, so that another may come to its place.
func scsiDevice(c *call, q *wire.Modify) {
	d, err := wire.ParseDisk(q.Settings)
	switch {
	case err != nil:
		c.fail(err)
	case q.RequestType != "Remove":
		c.refuseRequest(q)
	default:
		k := c.bridge.machine.Kernel
		c.beside(q, func() error { return unplug(k, &d) })
	}
}

func addDisk(k sys.Kernel, driver *loop.Once, d *wire.Disk) error {
	if err := driver.Do(func() error { return loadSCSI(k) }); err != nil {
		return err
	}
	name, err := findDisk(k, d)
	if err != nil || d.MountPath == "" {
		return err
	}
	m := blockMount{device: "/dev/" + name, target: d.MountPath, fstype: d.Filesystem, readOnly: d.ReadOnly, options: d.Options}
	return m.do(k)
}

func removeDisk(k sys.Kernel, d *wire.Disk) error {
	if d.MountPath != "" {
		if err := unmount(k, d.MountPath); err != nil {
			return err
		}
	}
	return unplug(k, d)
}

func growDisk(k sys.Kernel, d *wire.Disk) error {
	folder, err := diskFolder(k, d)
	if err != nil {
		return err
	}
	if err := k.WriteFile(folder+"/rescan", "1"); err != nil {
		return &wire.Error{Code: wire.Fail, Text: "looking at " + folder + " again", Cause: err}
	}
	if d.MountPath == "" {
		return nil
	}
	name := blockDevice(k, folder)
	sectors, err := k.ReadFile("/sys/class/block/" + name + "/size")
	if err != nil {
		return &wire.Error{Code: wire.Fail, Text: "size of " + name, Cause: err}
	}
	size, err := strconv.ParseUint(strings.TrimSpace(string(sectors)), 10, 54)
	if err != nil {
		return &wire.Error{Code: wire.Fail, Text: "size of " + name, Cause: err}
	}
	kind, err := fileSystem(k, "/dev/"+name)
	if err != nil {
		return err
	}
	if kind == "erofs" {
		return nil // has its size for good
	}
	if err := k.GrowFS(d.MountPath, kind, size*512); err != nil {
		return &wire.Error{Code: wire.Fail, Text: "growing the " + kind + " on " + d.MountPath, Cause: err}
	}
	return nil
}

// unplug makes the kernel forget a disk; one that it does not know is fine.
func unplug(k sys.Kernel, d *wire.Disk) error {
	folder, err := diskFolder(k, d)
	if err != nil {
		return err
	}
	if err := k.WriteFile(folder+"/delete", "1"); err != nil && err != syscall.ENOENT {
		return &wire.Error{Code: wire.Fail, Text: "unplugging " + folder, Cause: err}
	}
	return nil
}

// loadSCSI loads the driver, with the first disk. It finds out by itself which disks come later, but not which there are.
// The kernel's line may tell it to leave scans to others (scsi_mod.scan=manual) when it meets its controllers; a disk with LUN 0
// that comes later it scans for, so that it must be told to by then.
func loadSCSI(k sys.Kernel) error {
	if err := sys.LoadModules(k, "scsi"); err != nil {
		return err
	}
	if err := k.WriteFile(scsiScans, "sync"); err != nil {
		return &wire.Error{Code: wire.Fail, Text: "telling the disks' driver to scan, " + scsiScans, Cause: err}
	}
	hosts, err := virtioHosts(k)
	if err != nil {
		return err
	}
	for _, host := range hosts {
		path := scsiHosts + "/host" + strconv.Itoa(host) + "/scan"
		if err := k.WriteFile(path, "0 0 -"); err != nil {
			return &wire.Error{Code: wire.Fail, Text: "looking for disks, " + path, Cause: err}
		}
	}
	return nil
}

// findDisk waits for a disk's block device and returns its name. The driver hears of a disk by itself, but not always of
// one that comes right after another has gone from its place: then it is told to look.
func findDisk(k sys.Kernel, d *wire.Disk) (string, error) {
	host, err := scsiHost(k, d.Controller)
	if err != nil {
		return "", err
	}
	folder, lun := scsiFolder(host, d), strconv.Itoa(int(d.Lun))
	look := func() string { return blockDevice(k, folder) }
	what := "disk at controller " + strconv.Itoa(int(d.Controller)) + " lun " + lun
	name, err := appearBlock(k, what, maxUnheard, look)
	if wire.CodeOf(err) != wire.Timeout {
		return name, err
	}
	if err := k.WriteFile(scsiHosts+"/"+host+"/scan", "0 0 "+lun); err != nil {
		return "", &wire.Error{Code: wire.Fail, Text: "looking for the disk at " + folder, Cause: err}
	}
	return appearBlock(k, what, maxAppear, look)
}

// maxUnheard is how long the driver may take to hear of a disk by itself, in milliseconds.
const maxUnheard = 300

// diskFolder returns where sysfs has, or would have, a disk.
func diskFolder(k sys.Kernel, d *wire.Disk) (string, error) {
	host, err := scsiHost(k, d.Controller)
	if err != nil {
		return "", err
	}
	return scsiFolder(host, d), nil
}

func scsiFolder(host string, d *wire.Disk) string {
	return scsiDevices + "/" + strings.TrimPrefix(host, "host") + ":0:0:" + strconv.Itoa(int(d.Lun))
}

// scsiHost returns the kernel's name of a controller.
func scsiHost(k sys.Kernel, controller uint32) (string, error) {
	hosts, err := virtioHosts(k)
	if err != nil {
		return "", err
	}
	if int64(controller) >= int64(len(hosts)) {
		return "", &wire.Error{Code: wire.NotFound, Text: "there is no SCSI controller " + strconv.Itoa(int(controller))}
	}
	return "host" + strconv.Itoa(hosts[controller]), nil
}

// virtioHosts returns the kernel's numbers of QEMU's controllers, which come in their order.
func virtioHosts(k sys.Kernel) ([]int, error) {
	all, err := k.ReadDir(scsiHosts)
	if err != nil && err != syscall.ENOENT {
		return nil, &wire.Error{Code: wire.Fail, Text: "SCSI controllers", Cause: err}
	}
	var hosts []int
	for _, name := range all {
		driver, err := k.ReadFile(scsiHosts + "/" + name + "/proc_name")
		number, bad := strconv.Atoi(strings.TrimPrefix(name, "host"))
		if err == nil && bad == nil && strings.TrimSpace(string(driver)) == "virtio_scsi" {
			hosts = append(hosts, number)
		}
	}
	sort.Ints(hosts)
	return hosts, nil
}

// blockDevice returns the name of the block device of a SCSI disk, "" while there is none.
func blockDevice(k sys.Kernel, folder string) string {
	names, _ := k.ReadDir(folder + "/block")
	if len(names) != 1 {
		return ""
	}
	return names[0]
}
