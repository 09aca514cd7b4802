package sys

import (
	"syscall"
	"unsafe"
)

// Seal implements Kernel.
func (Linux) Seal(path string) (int, error) {
	const (
		closeOnExec, allowSealing = 1, 2
		addSeals                  = 1033 // F_ADD_SEALS
		all                       = 1 | 2 | 4 | 8
	)
	from, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer Close(from)
	name := []byte("sealed\x00")
	made, _, errno := syscall.Syscall(sysMemfdCreate, uintptr(unsafe.Pointer(&name[0])), closeOnExec|allowSealing, 0)
	if errno != 0 {
		return -1, errno
	}
	fd := int(made)
	for {
		n, err := syscall.Sendfile(fd, from, nil, 1<<30)
		if err == nil && n > 0 || err == syscall.EINTR {
			continue
		}
		if err == nil {
			_, _, errno := syscall.Syscall(syscall.SYS_FCNTL, made, addSeals, all)
			if errno == 0 {
				return fd, nil
			}
			err = errno
		}
		Close(fd)
		return -1, err
	}
}
