package sys

import "syscall"

// SwitchRoot implements Kernel.
func (Linux) SwitchRoot(folder string) error {
	var old syscall.Stat_t
	if err := syscall.Lstat("/", &old); err != nil {
		return err
	}
	if err := syscall.Chdir(folder); err != nil {
		return err
	}
	removeBelow("", old.Dev)
	if err := syscall.Mount(".", "/", "", syscall.MS_MOVE, ""); err != nil {
		return err
	}
	if err := syscall.Chroot("."); err != nil {
		return err
	}
	return syscall.Chdir("/")
}

// removeBelow removes what is in a folder on a device, without a slash at its end. What stays only takes memory.
func removeBelow(folder string, device uint64) {
	names, _ := Linux{}.ReadDir(folder + "/")
	for _, name := range names {
		path := folder + "/" + name
		var found syscall.Stat_t
		if syscall.Lstat(path, &found) != nil || found.Dev != device {
			continue
		}
		if found.Mode&syscall.S_IFMT == syscall.S_IFDIR {
			removeBelow(path, device)
			_ = syscall.Rmdir(path)
		} else {
			_ = syscall.Unlink(path)
		}
	}
}

// Exec implements Kernel.
func (Linux) Exec(path string, argv []string) error {
	return syscall.Exec(path, argv, syscall.Environ())
}
