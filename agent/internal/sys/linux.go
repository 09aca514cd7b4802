package sys

import (
	"sort"
	"strings"
	"sync"
	"syscall"
	"unsafe"
)

// Linux is the kernel that the agent runs on.
type Linux struct{}

var _ Kernel = Linux{}

const (
	maxOpenFiles  = 1 << 20
	rlimitNoFile  = 7
	rndAddEntropy = 0x40085203
	rndReseed     = 0x5207
	clockRealtime = 0
	powerOff      = 0x4321fedc
	userEvents    = 15 // NETLINK_KOBJECT_UEVENT
	kernelGroup   = 1
)

// Mkdir implements Kernel.
func (Linux) Mkdir(path string, mode uint32) error {
	return unlessExists(syscall.Mkdir(path, mode))
}

// Symlink implements Kernel.
func (Linux) Symlink(target, path string) error {
	return unlessExists(syscall.Symlink(target, path))
}

func unlessExists(err error) error {
	if err == syscall.EEXIST {
		return nil
	}
	return err
}

// Mount implements Kernel.
func (Linux) Mount(fstype, target string, flags uintptr, data string) error {
	return syscall.Mount(fstype, target, fstype, flags, data)
}

// MountDevice implements Kernel.
func (Linux) MountDevice(device, fstype, target string, flags uintptr, data string) error {
	return syscall.Mount(device, target, fstype, flags, data)
}

// Unmount implements Kernel.
func (Linux) Unmount(target string) error {
	const noFollow = 8 // UMOUNT_NOFOLLOW
	return syscall.Unmount(target, noFollow)
}

// Detach implements Kernel.
func (Linux) Detach(target string) error {
	const noFollow = 8 // UMOUNT_NOFOLLOW
	return syscall.Unmount(target, noFollow|syscall.MNT_DETACH)
}

// RemoveDir implements Kernel.
func (Linux) RemoveDir(path string) error { return syscall.Rmdir(path) }

// ReadHead implements Kernel.
func (Linux) ReadHead(path string, n int) ([]byte, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(fd)
	head := make([]byte, n)
	for read := 0; read < n; {
		more, err := syscall.Read(fd, head[read:])
		if err != nil && err != syscall.EINTR {
			return nil, err
		}
		if more <= 0 && err == nil {
			return head[:read], nil
		}
		if more > 0 {
			read += more
		}
	}
	return head, nil
}

// ReadFile implements Kernel.
func (Linux) ReadFile(path string) ([]byte, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer Close(fd)
	var text []byte
	for piece := make([]byte, 4096); ; {
		n, errno := Read(fd, piece)
		if errno != 0 {
			return nil, errno
		}
		if n == 0 {
			return text, nil
		}
		text = append(text, piece[:n]...)
	}
}

// WriteFile implements Kernel. A write may take its time: sysfs looks for disks meanwhile.
func (Linux) WriteFile(path, text string) error {
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	for {
		if _, err = syscall.Write(fd, []byte(text)); err != syscall.EINTR {
			return err
		}
	}
}

// ReplaceFile implements Kernel. A link of that name is replaced, not followed.
func (Linux) ReplaceFile(path, text string) error {
	part := path + ".new"
	err := Linux{}.CreateFile(part, text, 0o644)
	if err == nil {
		err = syscall.Rename(part, path)
	}
	if err != nil {
		_ = syscall.Unlink(part)
	}
	return err
}

// ReadDir implements Kernel.
func (Linux) ReadDir(path string) ([]string, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer Close(fd)
	var names []string
	for piece := make([]byte, 4096); ; {
		n, err := syscall.ReadDirent(fd, piece)
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			sort.Strings(names)
			return names, nil
		}
		_, _, names = syscall.ParseDirent(piece[:n], -1, names)
	}
}

// loaded has the modules that are known to be loaded: the kernel would read a whole file again to say so.
var loaded sync.Map

// LoadModule implements Kernel.
func (Linux) LoadModule(path, parameters string) error {
	if _, known := loaded.Load(path); known {
		return nil
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer Close(fd)
	text, err := syscall.BytePtrFromString(parameters)
	if err != nil {
		return err
	}
	_, _, errno := syscall.Syscall(sysFinitModule, uintptr(fd), uintptr(unsafe.Pointer(text)), 0)
	if errno != 0 && errno != syscall.EEXIST {
		return errno
	}
	loaded.Store(path, true)
	return nil
}

// OpenStandard implements Kernel. The kernel has opened a console for us already if it could, but by a name that the
// mounted /dev hides; and where it could not, the next pipe would become a standard stream.
func (Linux) OpenStandard() error {
	fd, err := syscall.Open("/dev/console", syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		if fd, err = OpenNull(); err != nil {
			return err
		}
	}
	for target := 0; target <= 2 && err == nil; target++ {
		if target == fd {
			_, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_SETFD, 0)
			if errno != 0 {
				err = errno
			}
		} else {
			err = syscall.Dup3(fd, target, 0)
		}
	}
	if fd > 2 {
		Close(fd)
	}
	return err
}

// RaiseLimits implements Kernel.
func (Linux) RaiseLimits() error {
	return syscall.Setrlimit(rlimitNoFile, &syscall.Rlimit{Cur: maxOpenFiles, Max: maxOpenFiles})
}

// InterruptNobody implements Kernel.
func (Linux) InterruptNobody() error {
	const batch = 3
	var priority int32
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETSCHEDULER, 0, batch, uintptr(unsafe.Pointer(&priority)))
	if errno != 0 {
		return errno
	}
	return nil
}

// LoopbackUp implements Kernel.
func (Linux) LoopbackUp() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer Close(fd)
	request := struct {
		name  [16]byte
		flags uint16
		_     [22]byte
	}{flags: syscall.IFF_UP | syscall.IFF_RUNNING}
	copy(request.name[:], "lo")
	return ioctl(fd, syscall.SIOCSIFFLAGS, unsafe.Pointer(&request))
}

func ioctl(fd int, request uintptr, argument unsafe.Pointer) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, uintptr(argument)); errno != 0 {
		return errno
	}
	return nil
}

// DeviceEvents implements Kernel.
func (Linux) DeviceEvents() (int, error) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, userEvents)
	if err != nil {
		return -1, err
	}
	if err := syscall.Bind(fd, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK, Groups: kernelGroup}); err != nil {
		Close(fd)
		return -1, err
	}
	return fd, nil
}

// NodeEvents implements Kernel.
func (Linux) NodeEvents() (int, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return -1, err
	}
	if _, err := syscall.InotifyAddWatch(fd, "/dev", syscall.IN_CREATE); err != nil {
		Close(fd)
		return -1, err
	}
	return fd, nil
}

// await waits until fd has one of the events, at most so many nanoseconds; n is 0 when it has none.
func await(fd int, events int16, ns int64) (n int, errno syscall.Errno) {
	waiting := struct {
		fd              int32
		events, returns int16
	}{fd: int32(fd), events: events}
	limit := syscall.NsecToTimespec(ns)
	found, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&waiting)), 1,
		uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	return int(found), errno
}

// WaitEvent implements Kernel.
func (Linux) WaitEvent(fd int, subsystem string, ms int) bool {
	wanted := "" // in anything
	if subsystem != "" {
		wanted = "\x00SUBSYSTEM=" + subsystem + "\x00"
	}
	var message [4096]byte
	for end := Now() + int64(ms)*1e6; ; {
		left := end - Now()
		if left < 0 {
			left = 0
		}
		if n, errno := await(fd, In, left); errno == 0 && n == 0 {
			return false
		}
		for news := false; ; {
			n, errno := Read(fd, message[:])
			if errno == Again {
				if news {
					return true
				}
				break
			}
			// An overflow (ENOBUFS) is news as well: the caller looks at everything again.
			news = news || errno != 0 || strings.Contains(string(message[:n]), wanted)
		}
	}
}

// OpenPort implements Kernel.
func (Linux) OpenPort(path string) (int, error) {
	return syscall.Open(path, syscall.O_RDWR|syscall.O_CLOEXEC|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
}

// AddEntropy implements Kernel.
func (Linux) AddEntropy(seed []byte) error {
	fd, err := syscall.Open("/dev/random", syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer Close(fd)
	pool := struct {
		bits, size int32
		seed       [512]byte
	}{}
	for len(seed) > 0 {
		n := copy(pool.seed[:], seed)
		pool.bits, pool.size = int32(8*n), int32(n)
		if err := ioctl(fd, rndAddEntropy, unsafe.Pointer(&pool)); err != nil {
			return err
		}
		seed = seed[n:]
	}
	if err := ioctl(fd, rndReseed, nil); err != nil && err != syscall.ENODATA { // which it says before it has enough
		return err
	}
	return nil
}

// SetClock implements Kernel.
func (Linux) SetClock(seconds, nanoseconds int64) error {
	now := syscall.NsecToTimespec(seconds*1_000_000_000 + nanoseconds)
	if _, _, errno := syscall.Syscall(syscall.SYS_CLOCK_SETTIME, clockRealtime, uintptr(unsafe.Pointer(&now)), 0); errno != 0 {
		return errno
	}
	return nil
}

// Sync implements Kernel.
func (Linux) Sync() { syscall.Sync() }

// PowerOff implements Kernel.
func (Linux) PowerOff() {
	_ = syscall.Reboot(powerOff)
	// Without ACPI the kernel halts and never returns; if it does return, PID 1 ending makes it panic, which -no-reboot
	// and panic=-1 turn into the machine's end.
	syscall.Exit(1)
}

// Console implements Kernel.
func (Linux) Console(text string) {
	line := []byte("utilityvm: " + text + "\n")
	fd, err := syscall.Open("/dev/console", syscall.O_WRONLY|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		_, _ = Write(2, line)
		return
	}
	_, _ = Write(fd, line)
	Close(fd)
}
