// Package systest has a kernel for tests: it records what is asked of it and behaves as the files it was given say.
package systest

import (
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"utilityvm/agent/internal/sys"
)

// Kernel implements sys.Kernel. Its fields may be set before it is used.
type Kernel struct {
	Calls   []string            // what was asked, in order
	Files   map[string]string   // content by path; a program is a file with content "program"
	Fail    map[string]error    // by call, as it is recorded
	News    []map[string]string // files that appear with each device event
	Spawned []sys.Command
	Child   sys.Child          // what Spawn returns
	Sockets map[uint32]int     // by port, what ListenVsock returns
	Links   map[int][]sys.Link // network interfaces, by the process in whose namespace they are; 0 is the agent

	mutex    sync.Mutex      // what works beside the agent's loop calls too
	Groups   map[int]int     // process groups of those that do not lead their own
	ReadOnly map[string]bool // file systems that cannot be written, by path
}

var _ sys.Kernel = (*Kernel)(nil)

func (k *Kernel) call(words ...string) error {
	line := strings.Join(words, " ")
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.Calls = append(k.Calls, line)
	return k.Fail[line]
}

// Mkdir implements sys.Kernel.
func (k *Kernel) Mkdir(path string, mode uint32) error {
	return k.call("mkdir", path, strconv.FormatUint(uint64(mode), 8))
}

// MakeDir implements sys.Kernel.
func (k *Kernel) MakeDir(path string, mode uint32) error {
	return k.call("new folder", path, strconv.FormatUint(uint64(mode), 8))
}

// MakeDirsBelow implements sys.Kernel.
func (k *Kernel) MakeDirsBelow(root, path string, mode uint32) error {
	return k.call("folders", root, path, strconv.FormatUint(uint64(mode), 8))
}

// CreateFile implements sys.Kernel: the file can be read.
func (k *Kernel) CreateFile(path, text string, mode uint32) error {
	err := k.call("create", path, strconv.FormatUint(uint64(mode), 8))
	if err == nil {
		k.write(path, text)
	}
	return err
}

func (k *Kernel) write(path, text string) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	if k.Files == nil {
		k.Files = map[string]string{}
	}
	k.Files[path] = text
}

func (k *Kernel) read(path string) (string, bool) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	text, there := k.Files[path]
	return text, there
}

// RemoveTree implements sys.Kernel.
func (k *Kernel) RemoveTree(path string) error {
	k.forget(path)
	return k.call("remove", path)
}

func (k *Kernel) forget(path string) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	for file := range k.Files {
		if file == path || strings.HasPrefix(file, path+"/") {
			delete(k.Files, file)
		}
	}
}

// Bind implements sys.Kernel.
func (k *Kernel) Bind(source, target string, readOnly bool) error {
	return k.call("bind", source, target, strconv.FormatBool(readOnly))
}

// ReadBelow implements sys.Kernel. It is not recorded.
func (k *Kernel) ReadBelow(root, path string, max int) ([]byte, error) {
	text, err := k.ReadFile(root + path)
	if len(text) > max {
		return nil, syscall.EFBIG
	}
	return text, err
}

// OpenFolderBelow implements sys.Kernel: Files has something in it. It is not recorded.
func (k *Kernel) OpenFolderBelow(root, path string) (int, error) {
	if _, err := k.ReadDir(root + path); err != nil {
		return -1, err
	}
	return syscall.Open("/", syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
}

// Seal implements sys.Kernel. The descriptor is none.
func (k *Kernel) Seal(path string) (int, error) { return -1, k.call("seal", path) }

// IsReadOnly implements sys.Kernel: where ReadOnly says so.
func (k *Kernel) IsReadOnly(path string) bool { return k.ReadOnly[path] }

// WriteFIFO implements sys.Kernel.
func (k *Kernel) WriteFIFO(path, text string) error { return k.call("release", path, text) }

// Device implements sys.Kernel: Files has "c MAJOR MINOR" or "b MAJOR MINOR". It is not recorded.
func (k *Kernel) Device(path string) (sys.Device, error) {
	if _, err := k.ReadDir(path); err == nil {
		return sys.Device{Kind: 'd'}, nil
	}
	text, err := k.ReadFile(path)
	if err != nil {
		return sys.Device{}, err
	}
	words := strings.Fields(string(text))
	if len(words) != 3 {
		return sys.Device{}, syscall.ENODEV
	}
	major, _ := strconv.Atoi(words[1])
	minor, _ := strconv.Atoi(words[2])
	return sys.Device{Kind: words[0][0], Major: uint32(major), Minor: uint32(minor), Mode: 0o600}, nil
}

// OpenProcess implements sys.Kernel.
func (k *Kernel) OpenProcess(pid int) (int, error) {
	return k.Child.Event, k.call("open process", strconv.Itoa(pid))
}

// Symlink implements sys.Kernel.
func (k *Kernel) Symlink(target, path string) error { return k.call("symlink", target, path) }

// Mount implements sys.Kernel.
func (k *Kernel) Mount(fstype, target string, _ uintptr, _ string) error {
	return k.call("mount", fstype, target)
}

// MountDevice implements sys.Kernel.
func (k *Kernel) MountDevice(device, fstype, target string, flags uintptr, data string) error {
	return k.call("mount", device, fstype, target, strconv.FormatUint(uint64(flags), 16), data)
}

// Unmount implements sys.Kernel.
func (k *Kernel) Unmount(target string) error { return k.call("unmount", target) }

// Detach implements sys.Kernel.
func (k *Kernel) Detach(target string) error { return k.call("detach", target) }

// RemoveDir implements sys.Kernel.
func (k *Kernel) RemoveDir(path string) error { return k.call("rmdir", path) }

// GrowFS implements sys.Kernel.
func (k *Kernel) GrowFS(target, fstype string, bytes uint64) error {
	return k.call("grow", target, fstype, strconv.FormatUint(bytes, 10))
}

// ReadHead implements sys.Kernel. It is not recorded.
func (k *Kernel) ReadHead(path string, n int) ([]byte, error) {
	text, err := k.ReadFile(path)
	if len(text) > n {
		text = text[:n]
	}
	return text, err
}

// ReadFile implements sys.Kernel. It is not recorded: reading changes nothing.
func (k *Kernel) ReadFile(path string) ([]byte, error) {
	if err := k.Fail["read "+path]; err != nil {
		return nil, err
	}
	text, ok := k.read(path)
	if !ok {
		return nil, syscall.ENOENT
	}
	return []byte(text), nil
}

// WriteFile implements sys.Kernel.
func (k *Kernel) WriteFile(path, text string) error { return k.call("write", path, text) }

// ReplaceFile implements sys.Kernel.
func (k *Kernel) ReplaceFile(path, text string) error {
	k.write(path, text)
	return k.call("replace", path)
}

// ReadDir implements sys.Kernel. It is not recorded.
func (k *Kernel) ReadDir(path string) ([]string, error) {
	names := map[string]bool{}
	k.mutex.Lock()
	defer k.mutex.Unlock()
	for file := range k.Files {
		if rest := strings.TrimPrefix(file, path+"/"); rest != file {
			name, _, _ := strings.Cut(rest, "/")
			names[name] = true
		}
	}
	if len(names) == 0 {
		return nil, syscall.ENOENT
	}
	var list []string
	for name := range names {
		list = append(list, name)
	}
	sort.Strings(list)
	return list, nil
}

// LoadModule implements sys.Kernel.
func (k *Kernel) LoadModule(path, parameters string) error {
	if parameters == "" {
		return k.call("module", path)
	}
	return k.call("module", path, parameters)
}

// OpenStandard implements sys.Kernel.
func (k *Kernel) OpenStandard() error { return k.call("standard streams") }

// RaiseLimits implements sys.Kernel.
func (k *Kernel) RaiseLimits() error { return k.call("limits") }

// QuietRuntime implements sys.Kernel.
func (k *Kernel) QuietRuntime() error { return k.call("quiet runtime") }

// InterruptNobody implements sys.Kernel.
func (k *Kernel) InterruptNobody() error { return k.call("interrupt nobody") }

// LoopbackUp implements sys.Kernel.
func (k *Kernel) LoopbackUp() error { return k.call("loopback") }

// DeviceEvents implements sys.Kernel.
func (k *Kernel) DeviceEvents() (int, error) { return -1, k.call("events") }

// NodeEvents implements sys.Kernel.
func (k *Kernel) NodeEvents() (int, error) { return -1, k.call("nodes") }

// WaitEvent implements sys.Kernel: the next of News appears, or the time is up.
func (k *Kernel) WaitEvent(_ int, _ string, _ int) bool {
	_ = k.call("wait")
	if len(k.News) == 0 {
		return false
	}
	for path, text := range k.News[0] {
		k.write(path, text)
	}
	k.News = k.News[1:]
	return true
}

// OpenPort implements sys.Kernel.
func (k *Kernel) OpenPort(path string) (int, error) { return 1000, k.call("open", path) }

// ListenVsock implements sys.Kernel.
func (k *Kernel) ListenVsock(port uint32) (int, error) {
	return k.Sockets[port], k.call("listen", strconv.FormatUint(uint64(port), 10))
}

// AddEntropy implements sys.Kernel.
func (k *Kernel) AddEntropy(seed []byte) error { return k.call("entropy", strconv.Itoa(len(seed))) }

// SetClock implements sys.Kernel.
func (k *Kernel) SetClock(seconds, nanoseconds int64) error {
	return k.call("clock", strconv.FormatInt(seconds, 10), strconv.FormatInt(nanoseconds, 10))
}

// Spawn implements sys.Kernel.
func (k *Kernel) Spawn(c *sys.Command) (sys.Child, error) {
	k.Spawned = append(k.Spawned, *c)
	return k.Child, k.call("spawn", c.Path)
}

// Freeze implements sys.Kernel.
func (k *Kernel) Freeze(path string, frozen bool) error {
	return k.call("freeze", path, strconv.FormatBool(frozen))
}

// RemoveGroup implements sys.Kernel.
func (k *Kernel) RemoveGroup(path string) error { return k.call("remove group", path) }

// SwitchRoot implements sys.Kernel.
func (k *Kernel) SwitchRoot(folder string) error { return k.call("switch root", folder) }

// Exec implements sys.Kernel, but returns.
func (k *Kernel) Exec(path string, argv []string) error {
	return k.call(append([]string{"exec", path}, argv...)...)
}

// Kill implements sys.Kernel.
func (k *Kernel) Kill(pid, signal int) error {
	return k.call("kill", strconv.Itoa(pid), strconv.Itoa(signal))
}

// Group implements sys.Kernel: each process leads its own but for those in Groups. It is not recorded.
func (k *Kernel) Group(pid int) (int, error) {
	if group, other := k.Groups[pid]; other {
		return group, nil
	}
	return pid, nil
}

// Executable implements sys.Kernel. It is not recorded.
func (k *Kernel) Executable(path string) error {
	switch text, ok := k.read(path); {
	case !ok:
		return syscall.ENOENT
	case text != "program":
		return syscall.EACCES
	}
	return nil
}

// Sync implements sys.Kernel.
func (k *Kernel) Sync() { _ = k.call("sync") }

// PowerOff implements sys.Kernel, but returns.
func (k *Kernel) PowerOff() { _ = k.call("power off") }

// Console implements sys.Kernel.
func (k *Kernel) Console(text string) { _ = k.call("console", text) }
