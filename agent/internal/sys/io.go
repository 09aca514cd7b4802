// Package sys is the one place of system calls.
//
// Descriptors are plain numbers and always non-blocking: the agent's single loop asks epoll and never waits elsewhere.
// Reads and writes therefore use raw system calls, which do not tell the Go scheduler that they may block.
package sys

import (
	"syscall"
	"unsafe"
)

// Again is the error of a call that would have to wait.
const Again = syscall.EAGAIN

// Read reads into p. errno is 0 on success; n 0 then means the end.
func Read(fd int, p []byte) (n int, errno syscall.Errno) {
	return transfer(syscall.SYS_READ, fd, p)
}

// Write writes p, or part of it.
func Write(fd int, p []byte) (n int, errno syscall.Errno) {
	return transfer(syscall.SYS_WRITE, fd, p)
}

func transfer(call uintptr, fd int, p []byte) (int, syscall.Errno) {
	if len(p) == 0 {
		return 0, 0
	}
	for {
		n, _, errno := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		if errno == 0 {
			return int(n), 0
		}
		if errno != syscall.EINTR {
			return 0, errno
		}
	}
}

// Close closes fd.
func Close(fd int) {
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0)
}

// Pipe returns a pipe whose ends are closed on exec; ours of the two, reading or writing, is non-blocking.
func Pipe(weRead bool) (ours, theirs int, err error) {
	var p [2]int
	if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
		return -1, -1, err
	}
	ours, theirs = p[0], p[1]
	if !weRead {
		ours, theirs = theirs, ours
	}
	// A new pipe has no other flags that this could lose.
	if _, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(ours), syscall.F_SETFL, syscall.O_NONBLOCK); errno != 0 {
		Close(ours)
		Close(theirs)
		return -1, -1, errno
	}
	return ours, theirs, nil
}

// LocalPair returns two connected sockets of a kind (syscall.SOCK_STREAM, ...), neither of which blocks; they are closed on exec.
func LocalPair(kind int) (first, second int, err error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, kind|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	return pair[0], pair[1], err
}

// SendFd sends a number with a copy of the descriptor fd on a socket that keeps messages apart.
func SendFd(socket int, number uint32, fd int) error {
	text := []byte{byte(number), byte(number >> 8), byte(number >> 16), byte(number >> 24)}
	return syscall.Sendmsg(socket, text, syscall.UnixRights(fd), nil, syscall.MSG_NOSIGNAL)
}

// ReceiveFd takes what SendFd has sent; fd is -1 at the end.
func ReceiveFd(socket int) (number uint32, fd int, err error) {
	var text [4]byte
	n, fd, err := receive(socket, text[:])
	if err != nil || n != len(text) || fd < 0 {
		return 0, -1, err
	}
	return uint32(text[0]) | uint32(text[1])<<8 | uint32(text[2])<<16 | uint32(text[3])<<24, fd, nil
}

// receive takes a message and the one descriptor that came with it; fd is -1 when there is none.
func receive(socket int, text []byte) (n, fd int, err error) {
	rights := make([]byte, syscall.CmsgSpace(4))
	n, size, _, _, err := syscall.Recvmsg(socket, text, rights, syscall.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, -1, err
	}
	messages, err := syscall.ParseSocketControlMessage(rights[:size])
	if err != nil || len(messages) != 1 {
		return n, -1, err
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return n, -1, err
	}
	return n, fds[0], nil
}

// largePipe is the size of a pipe through which much flows, in bytes: the program and we take turns less often, and each
// turn costs an emulated processor its translations of addresses.
const largePipe = 1024 * 1024

// Enlarge makes a pipe hold more. It stays as it is where that is forbidden, and where fd is none.
func Enlarge(fd int) {
	const setPipeSize = 1031 // F_SETPIPE_SZ
	_, _, _ = syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), setPipeSize, largePipe)
}

// Queued returns how many bytes a pipe holds; ok is false for what is no pipe.
func Queued(fd int) (n int, ok bool) {
	const getPipeSize, inputQueue = 1032, 0x541B // F_GETPIPE_SZ, FIONREAD
	if _, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), getPipeSize, 0); errno != 0 {
		return 0, false
	}
	var queued int32
	if ioctl(fd, inputQueue, unsafe.Pointer(&queued)) != nil {
		return 0, false
	}
	return int(queued), true
}

// OpenNull opens /dev/null for a child.
func OpenNull() (int, error) {
	return syscall.Open("/dev/null", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
}

// Eventfd returns a descriptor that becomes readable when it is rung.
func Eventfd() (int, error) {
	fd, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// Ring makes an Eventfd readable.
func Ring(fd int) {
	one := [8]byte{1}
	_, _ = Write(fd, one[:])
}

// Answer makes an Eventfd unreadable until it is rung again.
func Answer(fd int) {
	var count [8]byte
	_, _ = Read(fd, count[:])
}

// Epoll returns a new epoll descriptor.
func Epoll() (int, error) {
	return syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
}

// Events of Watch and Wait.
const (
	In  = syscall.EPOLLIN
	Out = syscall.EPOLLOUT
	Hup = syscall.EPOLLHUP
	Err = syscall.EPOLLERR
)

const epollET = 1 << 31

// Watch tells epoll to report events of fd with key, each once (edge-triggered): whoever is told must read or write
// until Again. change says that fd is watched already.
func Watch(epoll, fd int, events uint32, key uint64, change bool) error {
	op := syscall.EPOLL_CTL_ADD
	if change {
		op = syscall.EPOLL_CTL_MOD
	}
	ev := syscall.EpollEvent{Events: events | epollET, Fd: int32(key), Pad: int32(key >> 32)}
	return syscall.EpollCtl(epoll, op, fd, &ev)
}

// EventKey returns the key that the event's descriptor was watched with.
func EventKey(ev *syscall.EpollEvent) uint64 {
	return uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32
}

// linger is how long Wait keeps the Go scheduler out of a wait, in milliseconds: handing a thread's work over and back
// costs more than a process that is being started takes to answer. A longer wait lets the runtime's own threads sleep.
const linger = 20

// Wait fills events and returns how many. It waits up to ms milliseconds, for ever when ms is negative; then, or when
// a signal came, it may return none.
func Wait(epoll int, events []syscall.EpollEvent, ms int) (int, error) {
	short := ms
	if ms < 0 || ms > linger {
		short = linger
	}
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(epoll),
		uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(short), 0, 0)
	if n != 0 || errno != 0 || short == ms {
		return waited(int(n), errno)
	}
	if ms > 0 {
		ms -= linger
	}
	n, _, errno = syscall.Syscall6(syscall.SYS_EPOLL_PWAIT, uintptr(epoll),
		uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(ms), 0, 0)
	return waited(int(n), errno)
}

func waited(n int, errno syscall.Errno) (int, error) {
	switch errno {
	case 0:
		return n, nil
	case syscall.EINTR:
		return 0, nil
	}
	return 0, errno
}

// Now returns the monotonic clock in nanoseconds.
func Now() int64 {
	t := clock(1)
	return t.Nano()
}

// Uptime returns the microseconds since the kernel's clock began, those in which the machine was suspended included.
func Uptime() int64 {
	t := clock(7) // CLOCK_BOOTTIME
	return t.Nano() / 1000
}

// WallClock returns the seconds since 1970 and the nanoseconds of the running one.
func WallClock() (seconds, nanoseconds int64) {
	t := clock(0)
	return int64(t.Sec), int64(t.Nsec)
}

func clock(id uintptr) (t syscall.Timespec) {
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, id, uintptr(unsafe.Pointer(&t)), 0)
	return t
}
