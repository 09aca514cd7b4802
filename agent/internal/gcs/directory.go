package gcs

import (
	"strconv"
	"syscall"

	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// shareMessage is the longest message of a share, in bytes; docs/measurements/shares.md says why.
const shareMessage = 512 * 1024

// mappedDirectory mounts a folder of the host, and unmounts it; an update mounts it anew, for a machine that goes on from a template
// has another host, and its connection to the template's has ended.
func mappedDirectory(c *call, q *wire.Modify) {
	d, err := wire.ParseDirectory(q.Settings)
	if err != nil {
		c.fail(err)
		return
	}
	m := c.bridge.machine
	switch q.RequestType {
	case "Add":
		if m.directories[d.MountPath] {
			c.fail(&wire.Error{Code: wire.Fail, Text: d.MountPath + ": a folder of the host is mounted there already"})
			return
		}
		if m.directories == nil {
			m.directories = make(map[string]bool)
		}
		m.directories[d.MountPath] = true
		(&mounting{call: c, settings: d}).prepare()
	case "Update":
		if !m.directories[d.MountPath] {
			c.fail(&wire.Error{Code: wire.NotFound, Text: d.MountPath + ": no folder of the host is mounted there"})
			return
		}
		(&mounting{call: c, settings: d}).again()
	case "Remove":
		k := m.Kernel
		m.Loop.Beside(func() error { return unmount(k, d.MountPath) }, func(err error) {
			if err == nil {
				delete(m.directories, d.MountPath)
			}
			c.answer(wire.Response{Err: err})
		})
	default:
		c.refuseRequest(q)
	}
}

// mounting is a folder of the host on its way to its mount point: the folder and modules, then the connection, then the
// mount, in which the kernel talks to the host's server.
type mounting struct {
	call     *call
	settings wire.Directory
}

func (m *mounting) prepare() {
	machine, path := m.call.bridge.machine, m.settings.MountPath
	k := machine.Kernel
	machine.Loop.Beside(func() error {
		if err := sys.LoadModules(k, "9p"); err != nil {
			return err
		}
		return sys.MakeFolders(k, path, 0o700)
	}, func(err error) {
		if err != nil {
			m.fail("failed to mount directory for mapped directory "+path, err)
			return
		}
		m.mount()
	})
}

func (m *mounting) again() {
	machine, path := m.call.bridge.machine, m.settings.MountPath
	machine.Loop.Beside(func() error { return machine.Kernel.Detach(path) }, func(err error) {
		if err != nil {
			m.call.fail(&wire.Error{Code: wire.Fail, Text: "unmounting " + path, Cause: err})
			return
		}
		m.mount()
	})
}

func (m *mounting) mount() {
	machine, path := m.call.bridge.machine, m.settings.MountPath
	fd, err := machine.Shares.Connect(m.settings.Port)
	if err != nil {
		m.fail("could not connect to plan9 server for "+path, err)
		return
	}
	k, flags, data := machine.Kernel, uintptr(0), mountData(fd, m.settings.ShareName)
	if m.settings.ReadOnly {
		flags = syscall.MS_RDONLY
	}
	machine.Loop.Beside(func() error { return k.Mount("9p", path, flags, data) }, func(err error) {
		sys.Close(fd) // the kernel has a reference of its own
		if err != nil {
			m.fail("failed to mount directory for mapped directory "+path, err)
			return
		}
		m.call.answer(wire.Response{})
	})
}

func mountData(fd int, share string) string {
	number := strconv.Itoa(fd)
	data := "trans=fd,rfdno=" + number + ",wfdno=" + number + ",version=9p2000.L,msize=" + strconv.Itoa(shareMessage)
	if share != "" {
		data += ",aname=" + share
	}
	return data
}

// fail answers with the failure once the folder is gone, unless there is something in it.
func (m *mounting) fail(what string, why error) {
	machine, path := m.call.bridge.machine, m.settings.MountPath
	machine.Loop.Beside(func() error { return machine.Kernel.RemoveDir(path) }, func(error) {
		delete(machine.directories, path)
		m.call.fail(&wire.Error{Code: wire.Fail, Text: what, Cause: why})
	})
}
