package gcs

import (
	"strings"
	"syscall"

	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

// headSize is how much of a device tells its file system, in bytes.
const headSize = 4096

// readOnlyData keeps a file system from writing its journal, by its name.
var readOnlyData = map[string]string{"ext4": "noload", "xfs": "norecovery"}

// mountFlags are the options that are not the file system's own.
var mountFlags = map[string]uintptr{
	"ro": syscall.MS_RDONLY, "nosuid": syscall.MS_NOSUID, "nodev": syscall.MS_NODEV, "noexec": syscall.MS_NOEXEC,
	"noatime": syscall.MS_NOATIME, "nodiratime": syscall.MS_NODIRATIME, "relatime": syscall.MS_RELATIME,
	"strictatime": syscall.MS_STRICTATIME, "sync": syscall.MS_SYNCHRONOUS, "dirsync": syscall.MS_DIRSYNC,
	"rw": 0, "suid": 0, "dev": 0, "exec": 0, "atime": 0, "async": 0, "defaults": 0,
}

// propagation are the options that each take a mount of their own.
var propagation = map[string]uintptr{
	"private": syscall.MS_PRIVATE, "shared": syscall.MS_SHARED, "slave": syscall.MS_SLAVE, "unbindable": syscall.MS_UNBINDABLE,
	"rprivate": syscall.MS_PRIVATE | syscall.MS_REC, "rshared": syscall.MS_SHARED | syscall.MS_REC,
	"rslave": syscall.MS_SLAVE | syscall.MS_REC, "runbindable": syscall.MS_UNBINDABLE | syscall.MS_REC,
}

// blockMount says how a block device is mounted.
type blockMount struct {
	device, target string
	fstype         string // "" to find out
	readOnly       bool
	options        []string
	dax            bool // without the page cache, where the file system can
}

func (m *blockMount) do(k sys.Kernel) error {
	if !strings.HasPrefix(m.target, "/") {
		return invalid("MountPath \"" + m.target + "\" is not absolute")
	}
	if m.fstype == "" {
		kind, err := fileSystem(k, m.device)
		if err != nil {
			return err
		}
		m.fstype = kind
	}
	if err := sys.LoadModules(k, m.fstype); err != nil {
		return err
	}
	flags, data, changes := m.words()
	if err := sys.MakeFolders(k, m.target, 0o700); err != nil {
		return err
	}
	err := m.mount(k, flags, data)
	if err == nil {
		for _, change := range changes {
			if err = k.MountDevice("", "", m.target, change, ""); err != nil {
				_ = k.Unmount(m.target)
				break
			}
		}
	}
	if err != nil {
		_ = k.RemoveDir(m.target)
		return &wire.Error{Code: wire.Fail, Text: "mounting " + m.device + " as " + m.fstype + " on " + m.target, Cause: err}
	}
	return nil
}

// mount tries with DAX first: a file system whose blocks are smaller than pages cannot.
func (m *blockMount) mount(k sys.Kernel, flags uintptr, data []string) error {
	if m.dax {
		word := map[string]string{"erofs": "dax=always", "ext4": "dax", "xfs": "dax=always"}[m.fstype]
		if word != "" && k.MountDevice(m.device, m.fstype, m.target, flags, strings.Join(append([]string{word}, data...), ",")) == nil {
			return nil
		}
	}
	return k.MountDevice(m.device, m.fstype, m.target, flags, strings.Join(data, ","))
}

// words sorts the options: the kernel's, the file system's, and those that come after.
func (m *blockMount) words() (flags uintptr, data []string, changes []uintptr) {
	for _, option := range m.options {
		if flag, known := mountFlags[option]; known {
			flags |= flag
		} else if change, known := propagation[option]; known {
			changes = append(changes, change)
		} else if option != readOnlyData[m.fstype] {
			data = append(data, option)
		}
	}
	if m.readOnly {
		flags |= syscall.MS_RDONLY
	}
	if word := readOnlyData[m.fstype]; word != "" && flags&syscall.MS_RDONLY != 0 {
		data = append(data, word)
	}
	return flags, data, changes
}

// unmount takes a mount off and removes its folder, unless there is something in it. What is not mounted is no error.
func unmount(k sys.Kernel, target string) error {
	if err := k.Unmount(target); err != nil && err != syscall.ENOENT && err != syscall.EINVAL {
		return &wire.Error{Code: wire.Fail, Text: "unmounting " + target, Cause: err}
	}
	_ = k.RemoveDir(target)
	return nil
}

// fileSystem tells which file system is on a device.
func fileSystem(k sys.Kernel, device string) (string, error) {
	head, err := k.ReadHead(device, headSize)
	if err != nil {
		return "", &wire.Error{Code: wire.Fail, Text: "reading " + device, Cause: err}
	}
	has := func(offset int, magic string) bool {
		return len(head) >= offset+len(magic) && string(head[offset:offset+len(magic)]) == magic
	}
	switch {
	case has(1080, "\x53\xef"):
		return "ext4", nil
	case has(1024, "\xe2\xe1\xf5\xe0"):
		return "erofs", nil
	case has(0, "XFSB"):
		return "xfs", nil
	}
	return "", &wire.Error{Code: wire.Fail, Text: device + " has no file system that is known: ext4, erofs or xfs"}
}

// appear waits until look finds something, and looks again at each announcement of a device of that sort; patience is in
// milliseconds.
func appear(k sys.Kernel, sort, what string, patience int64, look func() string) (string, error) {
	return await(k, k.DeviceEvents, sort, what, sys.Now()+patience*1e6, look)
}

// appearBlock waits until look finds the name of a block device and it can be used. A node in /dev is one wake-up, where the
// kernel announces a dozen things on the way to it; only for its last step it is listened to.
func appearBlock(k sys.Kernel, what string, patience int64, look func() string) (string, error) {
	end := sys.Now() + patience*1e6
	name, err := await(k, k.NodeEvents, "", what, end, look)
	if err != nil || usable(k, name) {
		return name, err
	}
	return await(k, k.DeviceEvents, "block", what, end, func() string {
		if usable(k, name) {
			return name
		}
		return ""
	})
}

// await looks, and again at each piece of news of that sort, until something is found or it is the end.
func await(k sys.Kernel, subscribe func() (int, error), sort, what string, end int64, look func() string) (string, error) {
	found := ""
	there, err := sys.Appear(k, subscribe, sort, end, func() bool { found = look(); return found != "" })
	switch {
	case err != nil:
		return "", &wire.Error{Code: wire.Fail, Text: "device events", Cause: err}
	case !there:
		return "", &wire.Error{Code: wire.Timeout, Text: what + " did not appear"}
	}
	return found, nil
}

// usable says whether a block device can be opened, which is a while after it has its name, and right after it has its bdi. To
// try it earlier would make the kernel look for a module.
func usable(k sys.Kernel, name string) bool {
	if _, err := k.ReadFile("/sys/class/block/" + name + "/bdi/read_ahead_kb"); err != nil {
		return false
	}
	_, err := k.ReadHead("/dev/"+name, 1)
	return err != syscall.ENXIO && err != syscall.ENOENT
}

// maxAppear is how long a device may take to appear, in milliseconds.
const maxAppear = 20_000
