package gcs

import (
	"syscall"

	"utilityvm/agent/internal/logs"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

const (
	// nanosecondsInSecond is one more than the largest fraction of a second.
	nanosecondsInSecond = 1_000_000_000
	hostnameFile        = "/proc/sys/kernel/hostname"
	maxHostname         = 64 // bytes, as for the kernel
	machineIDFile       = "/etc/machine-id"
)

// identity makes the machine, which goes on from a template's memory, one of its own, and lets the template's programs know.
func identity(c *call, q *wire.Modify) {
	if q.RequestType != "Update" {
		c.refuseRequest(q)
		return
	}
	m := c.bridge.machine
	another, err := become(m.Kernel, q.Settings)
	if err != nil || !another {
		c.answer(wire.Response{Err: err})
		return
	}
	m.Log.Write(logs.Debug, "the machine goes on as another")
	runHooks(m.Loop, m.Kernel, m.Processes, func(err error) { c.answer(wire.Response{Err: err}) })
}

// become carries out what the settings say. The time is now, which is not what the template's clock goes on from. It returns whether the
// machine is another one now, and not the same at a later time.
func become(k sys.Kernel, settings string) (another bool, err error) {
	o, err := wire.ParseObject(settings)
	if err != nil {
		return false, err
	}
	seconds, err := o.Uint32("Seconds")
	if err != nil {
		return false, err
	}
	nanoseconds, err := o.Uint32("Nanoseconds")
	if err != nil {
		return false, err
	}
	hostname, err := o.String("Hostname")
	if err != nil {
		return false, err
	}
	machineID, err := o.String("MachineID")
	if err != nil {
		return false, err
	}
	switch {
	case seconds == 0 || nanoseconds >= nanosecondsInSecond:
		return false, invalid("VirtualMachineIdentity: Seconds and Nanoseconds are a time since 1970")
	case len(hostname) > maxHostname:
		return false, invalid("VirtualMachineIdentity: Hostname: '" + hostname + "' is no name of a host")
	}
	if err := k.SetClock(int64(seconds), int64(nanoseconds)); err != nil {
		return false, err
	}
	return machineID != "", rename(k, hostname, machineID)
}

// rename gives the machine another name, and another id where it has one at all. What is "" stays.
func rename(k sys.Kernel, hostname, machineID string) error {
	if hostname != "" {
		if err := k.WriteFile(hostnameFile, hostname); err != nil {
			return &wire.Error{Code: wire.Fail, Text: hostnameFile, Cause: err}
		}
	}
	if machineID == "" {
		return nil
	}
	switch _, err := k.ReadFile(machineIDFile); err {
	case nil:
		return k.ReplaceFile(machineIDFile, machineID+"\n")
	case syscall.ENOENT:
		return nil
	default:
		return &wire.Error{Code: wire.Fail, Text: machineIDFile, Cause: err}
	}
}
