package sys

import (
	"syscall"
	"unsafe"
)

const (
	afVsock  = 40
	anyCID   = 0xffffffff // VMADDR_CID_ANY
	backlog  = 128
	noSignal = 0x4000 // MSG_NOSIGNAL
	dontWait = 0x40   // MSG_DONTWAIT
)

// ListenVsock implements Kernel.
func (Linux) ListenVsock(port uint32) (int, error) {
	fd, err := syscall.Socket(afVsock, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	address := struct {
		family, _ uint16
		port, cid uint32
		_         [4]byte
	}{family: afVsock, port: port, cid: anyCID}
	_, _, errno := syscall.RawSyscall(syscall.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&address)), unsafe.Sizeof(address))
	if errno == 0 {
		_, _, errno = syscall.RawSyscall(syscall.SYS_LISTEN, uintptr(fd), backlog, 0)
	}
	if errno != 0 {
		Close(fd)
		return -1, errno
	}
	return fd, nil
}

// Accept takes the next connection that waits on the listening socket fd.
func Accept(fd int) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_ACCEPT4, uintptr(fd), 0, 0, syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case syscall.EINTR, syscall.ECONNABORTED: // that one is gone
		default:
			return -1, errno
		}
	}
}

// SocketPair returns two connected stream sockets that are closed on exec; ours is non-blocking.
func SocketPair() (ours, theirs int, err error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, err
	}
	if err := syscall.SetNonblock(pair[0], true); err != nil {
		Close(pair[0])
		Close(pair[1])
		return -1, -1, err
	}
	return pair[0], pair[1], nil
}

// Shut ends the directions of a socket that how names: syscall.SHUT_RD, SHUT_WR or SHUT_RDWR.
func Shut(fd, how int) {
	_, _, _ = syscall.RawSyscall(syscall.SYS_SHUTDOWN, uintptr(fd), uintptr(how), 0)
}

// Gone reports whether the other end of a connected socket is closed and has left nothing to be read.
func Gone(fd int) bool {
	const peek = 2 // MSG_PEEK
	var p [1]byte
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), 1, peek|dontWait, 0, 0)
	return !Listens(fd) && errno != Again && (errno != 0 || n == 0)
}

// Listens reports whether the other end of a connected socket still takes bytes. The kernel announces its end only to
// those who write; writing nothing is enough.
func Listens(fd int) bool {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), 0, 0, noSignal|dontWait, 0, 0)
	return errno == 0 || errno == Again
}
