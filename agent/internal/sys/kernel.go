package sys

// Command says what Spawn starts. Path has been looked up; relative ones are relative to Dir. Files are the child's
// descriptors 0, 1 and 2. With Console the child's standard input becomes its controlling terminal.
type Command struct {
	Path    string
	Args    []string
	Env     []string
	Dir     string
	Files   [3]int
	Console bool
	User    *Credential // nil for the agent's own, which is root's
}

// Child is a process that was started. Event is a descriptor that becomes readable when it has ended.
type Child struct{ PID, Event int }

// Device is a device's file: 'c' for characters, 'b' for blocks, and 'd' for a folder, which has nothing else.
type Device struct {
	Kind         byte
	Major, Minor uint32
	Mode         uint32
	UID, GID     uint32
}

// Credential is who a process runs as.
type Credential struct {
	UID, GID uint32
	Groups   []uint32
}

// Kernel is what the agent asks of the kernel besides moving bytes. Errors are syscall.Errno where the kernel gave one.
type Kernel interface {
	// Mkdir makes a folder; an existing one is no error.
	Mkdir(path string, mode uint32) error
	// MakeDir makes a folder, where nothing may be.
	MakeDir(path string, mode uint32) error
	// MakeDirsBelow makes a folder and those above it, below root. Links on the way are an error.
	MakeDirsBelow(root, path string, mode uint32) error
	// CreateFile makes a file, or replaces its content. A link in its place is an error.
	CreateFile(path, text string, mode uint32) error
	// RemoveTree removes a file or a folder with all that is in it, but for other file systems; nothing there is no error.
	RemoveTree(path string) error
	// Symlink makes path a link to target; an existing entry is no error.
	Symlink(target, path string) error
	// Mount mounts a file system.
	Mount(fstype, target string, flags uintptr, data string) error
	// MountDevice mounts the file system on a block device.
	MountDevice(device, fstype, target string, flags uintptr, data string) error
	// Bind makes a file or folder visible at another one, too.
	Bind(source, target string, readOnly bool) error
	// Unmount takes off what is mounted last on target.
	Unmount(target string) error
	// Detach takes it off for all who come later: who has something open in it keeps that.
	Detach(target string) error
	// RemoveDir removes an empty folder.
	RemoveDir(path string) error
	// GrowFS makes the file system mounted on target as large as its device, which has so many bytes.
	GrowFS(target, fstype string, bytes uint64) error
	// ReadHead returns the first bytes of a file or block device, n of them or as many as there are.
	ReadHead(path string, n int) ([]byte, error)
	// ReadFile returns a whole file.
	ReadFile(path string) ([]byte, error)
	// ReadBelow returns a whole regular file of at most max bytes, whose path and links are those of a program whose root folder is root.
	ReadBelow(root, path string, max int) ([]byte, error)
	// OpenFolderBelow opens a folder, whose path and links are those of a program whose root folder is root; to name what is in it.
	OpenFolderBelow(root, path string) (int, error)
	// Seal opens a copy of a file, in memory, that nobody can change.
	Seal(path string) (int, error)
	// IsReadOnly reports whether nobody can write to the file system that path is on.
	IsReadOnly(path string) bool
	// WriteFIFO writes to a named pipe; that nobody reads it is an error.
	WriteFIFO(path, text string) error
	// Device tells what a device's file stands for.
	Device(path string) (Device, error)
	// WriteFile writes text to an existing file.
	WriteFile(path, text string) error
	// ReplaceFile makes a file with this text, whatever has its name.
	ReplaceFile(path, text string) error
	// ReadDir returns the names in a folder, sorted.
	ReadDir(path string) ([]string, error)
	// LoadModule loads a kernel module with its parameters, separated by blanks; one that is loaded already is no error.
	LoadModule(path, parameters string) error
	// OpenStandard makes the console, or /dev/null where there is none, the agent's descriptors 0, 1 and 2.
	OpenStandard() error
	// RaiseLimits sets the limit of open files for the agent and its children.
	RaiseLimits() error
	// QuietRuntime lets this process's own signals and timers cost as little as they can.
	QuietRuntime() error
	// InterruptNobody makes this thread, and the programs that it starts from now on, wait for their turn when they wake up.
	InterruptNobody() error
	// LoopbackUp brings the network interface lo up.
	LoopbackUp() error
	// OpenNet opens the network of a process's namespace, of the agent's own for 0.
	OpenNet(pid int) (Net, error)
	// DeviceEvents opens the kernel's announcements of devices, a descriptor to be watched.
	DeviceEvents() (int, error)
	// NodeEvents opens the news of nodes in /dev, a descriptor to be watched.
	NodeEvents() (int, error)
	// WaitEvent waits until fd, opened by DeviceEvents, has announcements of a subsystem, and takes all that there are;
	// false after ms milliseconds. Of NodeEvents all news count, and the subsystem is "".
	WaitEvent(fd int, subsystem string, ms int) bool
	// OpenPort opens a character device for reading and writing without blocking.
	OpenPort(path string) (int, error)
	// ListenVsock listens on a port of AF_VSOCK, for connections from this machine.
	ListenVsock(port uint32) (int, error)
	// AddEntropy feeds the kernel's random number generator, credits every bit, and lets all numbers from now on depend on it.
	AddEntropy(seed []byte) error
	// SetClock sets the clock to so many seconds and nanoseconds since 1970.
	SetClock(seconds, nanoseconds int64) error
	// Spawn starts a process as a session leader. The error is that of the step that failed, exec included.
	Spawn(c *Command) (Child, error)
	// OpenProcess returns a descriptor that becomes readable when the process has ended.
	OpenProcess(pid int) (int, error)
	// Freeze stops all processes of a control group where they are and waits until they stand, or lets them go on.
	Freeze(path string, frozen bool) error
	// RemoveGroup ends all processes in a control group and in those below, and removes them; nothing there is no error.
	RemoveGroup(path string) error
	// SwitchRoot makes the file system mounted on folder the root, and frees what was in the old one, an initial RAM disk.
	SwitchRoot(folder string) error
	// Exec makes this process another program, with the same environment; it returns only when that fails.
	Exec(path string, argv []string) error
	// Kill sends a signal to one process, or to a process group whose number is -pid.
	Kill(pid, signal int) error
	// Group returns the process group of a process.
	Group(pid int) (int, error)
	// Executable says how access to a program goes: nil, or why not.
	Executable(path string) error
	// Sync writes file systems to their disks.
	Sync()
	// PowerOff switches the machine off and does not return.
	PowerOff()
	// Console writes a line to the console.
	Console(text string)
}
