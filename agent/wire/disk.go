package wire

// Disk are the settings of MappedVirtualDisk and SCSIDevice. Without a MountPath the disk is only made visible.
type Disk struct {
	MountPath  string
	Controller uint32
	Lun        uint32
	ReadOnly   bool
	Options    []string
	Encrypted  bool
	Partition  uint32
	Filesystem string
}

// ParseDisk reads the settings of a disk.
func ParseDisk(settings string) (d Disk, err error) {
	r := newJSONReader(orNothing(settings))
	r.object(func(key string) {
		switch key {
		case "MountPath":
			d.MountPath = r.str()
		case "Controller":
			d.Controller = r.uint32()
		case "Lun":
			d.Lun = r.uint32()
		case "ReadOnly":
			d.ReadOnly = r.boolean()
		case "Options":
			d.Options = r.strings()
		case "Encrypted":
			d.Encrypted = r.boolean()
		case "Partition":
			d.Partition = r.uint32()
		case "Filesystem":
			d.Filesystem = r.str()
		default:
			r.skip()
		}
	})
	return d, r.end()
}

// PMem are the settings of VPMemDevice.
type PMem struct {
	DeviceNumber uint32
	MountPath    string
	Mapped       bool // a part of the device is meant
	Verity       bool
}

// ParsePMem reads the settings of a persistent memory device.
func ParsePMem(settings string) (d PMem, err error) {
	r := newJSONReader(orNothing(settings))
	r.object(func(key string) {
		switch key {
		case "DeviceNumber":
			d.DeviceNumber = r.uint32()
		case "MountPath":
			d.MountPath = r.str()
		case "MappingInfo":
			d.Mapped = r.raw() != ""
		case "VerityInfo":
			d.Verity = r.raw() != ""
		default:
			r.skip()
		}
	})
	return d, r.end()
}

// PCI are the settings of VPCIDevice. Placed says that a Place was named.
type PCI struct {
	VMBusGUID string
	Place     uint32
	Placed    bool
}

// ParsePCI reads the settings of a device of the host.
func ParsePCI(settings string) (d PCI, err error) {
	r := newJSONReader(orNothing(settings))
	r.object(func(key string) {
		switch key {
		case "VMBusGUID":
			d.VMBusGUID = r.str()
		case "Place":
			d.Place, d.Placed = r.uint32(), true
		default:
			r.skip()
		}
	})
	return d, r.end()
}

// orNothing stands for settings that were left out.
func orNothing(settings string) string {
	if settings == "" {
		return "{}"
	}
	return settings
}
