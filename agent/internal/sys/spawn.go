package sys

import (
	"syscall"
	"unsafe"
)

const (
	sysPidfdOpen  = 434    // the same on every architecture
	ioctlOpenPeer = 0x5441 // TIOCGPTPEER
)

// Spawn implements Kernel.
func (Linux) Spawn(c *Command) (Child, error) {
	child, err := spawn(c)
	if err == syscall.ENOSYS {
		return forkExec(c)
	}
	return child, err
}

// forkExec starts c by the standard library's way, which works everywhere.
func forkExec(c *Command) (Child, error) {
	attr := syscall.ProcAttr{
		Dir:   c.Dir,
		Env:   c.Env,
		Files: []uintptr{uintptr(c.Files[0]), uintptr(c.Files[1]), uintptr(c.Files[2])},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: c.Console},
	}
	if c.User != nil {
		attr.Sys.Credential = &syscall.Credential{Uid: c.User.UID, Gid: c.User.GID, Groups: c.User.Groups}
	}
	pid, err := syscall.ForkExec(c.Path, c.Args, &attr)
	if err != nil {
		return Child{}, err
	}
	event, err := Linux{}.OpenProcess(pid)
	if err != nil {
		return Child{}, err
	}
	return Child{pid, event}, nil
}

// Kill implements Kernel.
func (Linux) Kill(pid, signal int) error {
	return syscall.Kill(pid, syscall.Signal(signal))
}

// Group implements Kernel.
func (Linux) Group(pid int) (int, error) { return syscall.Getpgid(pid) }

// Executable implements Kernel.
func (Linux) Executable(path string) error {
	var stat syscall.Stat_t
	if err := syscall.Stat(path, &stat); err != nil {
		return err
	}
	if stat.Mode&syscall.S_IFMT != syscall.S_IFREG || stat.Mode&0o111 == 0 {
		return syscall.EACCES
	}
	return nil
}

// Reap returns the next child that has ended and its exit code, 128 plus the signal if one killed it; ok is false when
// there is none.
func Reap() (pid, code int, ok bool) {
	var status syscall.WaitStatus
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_WAIT4, ^uintptr(0), uintptr(unsafe.Pointer(&status)),
			syscall.WNOHANG, 0, 0, 0)
		switch {
		case errno == syscall.EINTR:
			continue
		case errno != 0 || n == 0:
			return 0, 0, false
		case status.Signaled():
			return int(n), 128 + int(status.Signal()), true
		}
		return int(n), status.ExitStatus(), true
	}
}

// Terminal returns a new pseudo terminal: our end, which is non-blocking, and the child's.
func Terminal() (ours, theirs int, err error) {
	ours, err = syscall.Open("/dev/ptmx", syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return -1, -1, err
	}
	var unlocked int32
	if err = ioctl(ours, syscall.TIOCSPTLCK, unsafe.Pointer(&unlocked)); err == nil {
		// This opens the other end without a path, so that another devpts over ours cannot mislead.
		fd, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(ours), ioctlOpenPeer, syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC)
		if errno == 0 {
			return ours, int(fd), nil
		}
		err = errno
	}
	Close(ours)
	return -1, -1, err
}

// Own makes fd's file uid's. Where that is not allowed it stays whose it is.
func Own(fd int, uid uint32) {
	_, _, _ = syscall.RawSyscall(syscall.SYS_FCHOWN, uintptr(fd), uintptr(uid), ^uintptr(0))
}

// Resize sets the size of a terminal in characters.
func Resize(terminal int, height, width uint16) error {
	size := [4]uint16{height, width}
	return ioctl(terminal, syscall.TIOCSWINSZ, unsafe.Pointer(&size))
}
