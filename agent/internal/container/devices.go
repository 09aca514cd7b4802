package container

import (
	"strconv"

	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// maxDevices is how many of the machine's devices a privileged container gets.
const maxDevices = 1024

// resolveDevices gives each device of the specification the numbers that it has in this machine, which are not those of the host, and
// lets the container use it. A device that the machine has under no such name keeps the numbers that the specification says.
func (s *spec) resolveDevices(k sys.Kernel) error {
	rules, err := s.resources.Objects("devices")
	if err != nil {
		return err
	}
	if s.privileged {
		s.devices = append(s.devices, allDevices(k, "/dev")...)
		s.resources.Set("devices", `[{"allow":true,"access":"rwm"}]`)
		return nil
	}
	if len(s.devices) == 0 {
		return nil
	}
	if len(rules) == 0 {
		rules = append(rules, wire.Object{{Name: "allow", Text: "false"}, {Name: "access", Text: `"rwm"`}})
	}
	for i := range s.devices {
		d := &s.devices[i]
		path, err := d.String("path")
		if err != nil {
			return err
		}
		if has, err := k.Device(path); err == nil && has.Kind != 'd' {
			setDevice(d, has)
		} else if d.Text("major") == "" || d.Text("type") == "" {
			return &wire.Error{Code: wire.InvalidArg, Text: "device " + path + ": the utility VM has none of this name, and no type and numbers are given"}
		}
		rules = append(rules, wire.Object{{Name: "allow", Text: "true"}, {Name: "type", Text: d.Text("type")},
			{Name: "major", Text: d.Text("major")}, {Name: "minor", Text: orText(d.Text("minor"), "0")}, {Name: "access", Text: `"rwm"`}})
	}
	s.resources.Set("devices", wire.EncodeList(rules))
	return nil
}

func setDevice(d *wire.Object, has sys.Device) {
	d.Set("type", `"`+string(rune(has.Kind))+`"`)
	d.Set("major", strconv.FormatUint(uint64(has.Major), 10))
	d.Set("minor", strconv.FormatUint(uint64(has.Minor), 10))
}

// allDevices describes the devices in a folder of the machine and below. Terminals are the container's own affair.
func allDevices(k sys.Kernel, folder string) (found []wire.Object) {
	names, _ := k.ReadDir(folder)
	for _, name := range names {
		path := folder + "/" + name
		if name == "pts" || name == "ptmx" || name == "console" || name == "shm" || name == "mqueue" || len(found) == maxDevices {
			continue
		}
		has, err := k.Device(path)
		if err != nil {
			continue
		}
		if has.Kind == 'd' {
			found = append(found, allDevices(k, path)...)
			continue
		}
		d := wire.Object{{Name: "path", Text: wire.Quoted(path)}}
		setDevice(&d, has)
		d.Set("fileMode", strconv.FormatUint(uint64(has.Mode), 10))
		d.Set("uid", strconv.FormatUint(uint64(has.UID), 10))
		d.Set("gid", strconv.FormatUint(uint64(has.GID), 10))
		found = append(found, d)
	}
	return found
}
