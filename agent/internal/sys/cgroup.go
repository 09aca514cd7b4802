package sys

import (
	"strings"
	"syscall"
)

// groupPatience is how long the processes of a control group may take to end, or to stand still, in milliseconds.
const groupPatience = 10_000

// RemoveGroup implements Kernel.
func (Linux) RemoveGroup(path string) error {
	if err := (Linux{}).WriteFile(path+"/cgroup.kill", "1"); err != nil {
		return unlessAbsent(err)
	}
	if err := awaitGroup(path, "populated 0"); err != nil {
		return err
	}
	return removeGroups(path)
}

// Freeze implements Kernel.
func (Linux) Freeze(path string, frozen bool) error {
	word := map[bool]string{true: "1", false: "0"}[frozen]
	err := Linux{}.WriteFile(path+"/cgroup.freeze", word)
	if err == nil {
		err = awaitGroup(path, "frozen "+word)
	}
	if err != nil && frozen {
		_ = Linux{}.WriteFile(path+"/cgroup.freeze", "0")
	}
	return err
}

// awaitGroup waits until the kernel says so of a control group and those below it.
func awaitGroup(path, state string) error {
	fd, err := syscall.Open(path+"/cgroup.events", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer Close(fd)
	var text [256]byte
	for end := Now() + groupPatience*1e6; ; {
		n, err := syscall.Pread(fd, text[:], 0)
		if err != nil {
			return err
		}
		if strings.Contains(string(text[:n]), state) {
			return nil
		}
		left := end - Now()
		if left <= 0 {
			return syscall.EBUSY
		}
		_, _ = await(fd, syscall.EPOLLPRI, left)
	}
}

// removeGroups removes a control group and those below it.
func removeGroups(path string) error {
	err := syscall.Rmdir(path)
	if err != syscall.EBUSY {
		return unlessAbsent(err)
	}
	names, _ := Linux{}.ReadDir(path)
	for _, name := range names {
		var found syscall.Stat_t
		if syscall.Lstat(path+"/"+name, &found) == nil && found.Mode&syscall.S_IFMT == syscall.S_IFDIR {
			if err := removeGroups(path + "/" + name); err != nil {
				return err
			}
		}
	}
	return unlessAbsent(syscall.Rmdir(path))
}
