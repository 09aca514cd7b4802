package sys

import (
	"strings"
	"syscall"
	"unsafe"
)

const (
	sysOpenat2 = 437 // the same on every architecture
	// How a path is looked up: links of the kernel's own are not followed, "/" and ".." stay below the folder, links are not followed.
	resolveNoMagic  = 0x02
	resolveNoLinks  = 0x04
	resolveInRoot   = 0x10
	openPath        = 0x200000 // O_PATH
	removeDirectory = 0x200    // AT_REMOVEDIR
)

// MakeDir implements Kernel.
func (Linux) MakeDir(path string, mode uint32) error { return syscall.Mkdir(path, mode) }

// CreateFile implements Kernel.
func (Linux) CreateFile(path, text string, mode uint32) error {
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_TRUNC|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, mode)
	if err != nil {
		return err
	}
	defer Close(fd)
	for rest := []byte(text); len(rest) > 0; {
		n, err := syscall.Write(fd, rest)
		if err != nil && err != syscall.EINTR {
			return err
		}
		if n > 0 {
			rest = rest[n:]
		}
	}
	return nil
}

// RemoveTree implements Kernel.
func (Linux) RemoveTree(path string) error {
	var found syscall.Stat_t
	if err := syscall.Lstat(path, &found); err != nil {
		return unlessAbsent(err)
	}
	if found.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return unlessAbsent(syscall.Unlink(path))
	}
	removeBelow(path, found.Dev)
	return unlessAbsent(syscall.Rmdir(path))
}

func unlessAbsent(err error) error {
	if err == syscall.ENOENT {
		return nil
	}
	return err
}

// openBelow opens a path as a program whose root folder were root would.
func openBelow(root, path string, flags uint64, resolve uint64) (int, error) {
	folder, err := syscall.Open(root, openPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer Close(folder)
	name, err := syscall.BytePtrFromString(path)
	if err != nil {
		return -1, err
	}
	how := struct{ flags, mode, resolve uint64 }{flags | syscall.O_CLOEXEC, 0, resolve | resolveNoMagic}
	fd, _, errno := syscall.Syscall6(sysOpenat2, uintptr(folder), uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&how)),
		unsafe.Sizeof(how), 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// ReadBelow implements Kernel. It opens without waiting: a file of somebody else's may be a pipe that nobody writes to.
func (Linux) ReadBelow(root, path string, max int) ([]byte, error) {
	fd, err := openBelow(root, path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, resolveInRoot)
	if err != nil {
		return nil, err
	}
	defer Close(fd)
	var found syscall.Stat_t
	if err := syscall.Fstat(fd, &found); err != nil {
		return nil, err
	}
	if found.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return nil, syscall.EINVAL
	}
	if found.Size > int64(max) {
		return nil, syscall.EFBIG
	}
	text := make([]byte, 0, found.Size)
	for piece := make([]byte, 4096); len(text) <= max; {
		n, err := syscall.Read(fd, piece)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return text, nil
		}
		text = append(text, piece[:n]...)
	}
	return nil, syscall.EFBIG
}

// OpenFolderBelow implements Kernel.
func (Linux) OpenFolderBelow(root, path string) (int, error) {
	return openBelow(root, path, openPath|syscall.O_DIRECTORY, resolveInRoot)
}

// MakeDirsBelow implements Kernel.
func (Linux) MakeDirsBelow(root, path string, mode uint32) error {
	made := ""
	for _, name := range strings.Split(path, "/") {
		parent := made
		if made != "" {
			made += "/"
		}
		made += name
		if parent == "" {
			parent = "."
		}
		folder, err := openBelow(root, parent, openPath|syscall.O_DIRECTORY, resolveInRoot|resolveNoLinks)
		if err != nil {
			return err
		}
		err = unlessExists(syscall.Mkdirat(folder, name, mode))
		Close(folder)
		if err != nil {
			return err
		}
	}
	folder, err := openBelow(root, path, openPath|syscall.O_DIRECTORY, resolveInRoot|resolveNoLinks)
	if err == nil {
		Close(folder)
	}
	return err
}

// Bind implements Kernel.
func (Linux) Bind(source, target string, readOnly bool) error {
	if err := syscall.Mount(source, target, "", syscall.MS_BIND, ""); err != nil {
		return err
	}
	if !readOnly {
		return nil
	}
	err := syscall.Mount("", target, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
	if err != nil {
		_ = Linux{}.Unmount(target)
	}
	return err
}

// IsReadOnly implements Kernel.
func (Linux) IsReadOnly(path string) bool {
	var found syscall.Statfs_t
	return syscall.Statfs(path, &found) == nil && found.Flags&syscall.MS_RDONLY != 0
}

// WriteFIFO implements Kernel.
func (Linux) WriteFIFO(path, text string) error {
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer Close(fd)
	if _, errno := Write(fd, []byte(text)); errno != 0 {
		return errno
	}
	return nil
}

// Device implements Kernel.
func (Linux) Device(path string) (Device, error) {
	var found syscall.Stat_t
	if err := syscall.Lstat(path, &found); err != nil {
		return Device{}, err
	}
	d := Device{Mode: found.Mode & 0o7777, UID: found.Uid, GID: found.Gid, Kind: 'c'}
	switch found.Mode & syscall.S_IFMT {
	case syscall.S_IFBLK:
		d.Kind = 'b'
	case syscall.S_IFCHR:
	case syscall.S_IFDIR:
		return Device{Kind: 'd'}, nil
	default:
		return Device{}, syscall.ENODEV
	}
	d.Major = uint32(found.Rdev>>8)&0xfff | uint32(found.Rdev>>32)&^0xfff
	d.Minor = uint32(found.Rdev)&0xff | uint32(found.Rdev>>12)&^0xff
	return d, nil
}

// OpenProcess implements Kernel.
func (Linux) OpenProcess(pid int) (int, error) {
	event, _, errno := syscall.RawSyscall(sysPidfdOpen, uintptr(pid), 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(event), nil
}

// ListenLocal returns a socket of AF_UNIX that listens on a path for one connection, without blocking.
func ListenLocal(path string) (int, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if err = syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err == nil {
		err = syscall.Listen(fd, 1)
	}
	if err != nil {
		Close(fd)
		return -1, err
	}
	return fd, nil
}

// TakeFd takes the one descriptor that was sent to a socket by whoever has connected to it, and makes it non-blocking.
func TakeFd(listener int) (int, error) {
	socket, errno := Accept(listener)
	if errno != 0 {
		return -1, errno
	}
	defer Close(socket)
	var text [256]byte
	_, fd, err := receive(socket, text[:])
	if err != nil {
		return -1, err
	}
	if fd < 0 {
		return -1, syscall.EBADMSG
	}
	return fd, syscall.SetNonblock(fd, true)
}
