package boot

import (
	"syscall"

	"utilityvm/agent/internal/session"
	"utilityvm/agent/internal/sys"
)

const (
	nosuid = syscall.MS_NOSUID
	nodev  = syscall.MS_NODEV
	noexec = syscall.MS_NOEXEC
)

// receiveBytes are the least, the usual and the most that a connection of TCP may hold of what its program has not read,
// as on every machine with 768 MiB or more. The kernel lets a smaller one hold 1/128 of its memory: too little to keep coming
// what goes through several processes of the host. All network namespaces that are made later have the same.
const (
	receiveFile  = "/proc/sys/net/ipv4/tcp_rmem"
	receiveBytes = "4096 131072 6291456"
)

type mount struct {
	fstype, target string
	flags          uintptr
	data           string
	mode           uint32
}

// told are the file systems in which the kernel tells of the machine; they come first.
var told = []mount{
	{"devtmpfs", "/dev", nosuid, "mode=0755", 0o755},
	{"proc", "/proc", nosuid | nodev | noexec, "", 0o555},
	{"sysfs", "/sys", nosuid | nodev | noexec, "", 0o555},
}

// mounts are made in this order; those of control groups follow.
var mounts = []mount{
	{"devpts", "/dev/pts", nosuid | noexec, "mode=0620,gid=5,ptmxmode=0666", 0o755},
	{"tmpfs", "/dev/shm", nosuid | nodev, "mode=1777", 0o1777},
	{"tmpfs", "/run", nosuid | nodev, "mode=0755", 0o755},
	{"tmpfs", "/tmp", nosuid | nodev, "mode=1777", 0o1777},
}

// links are what programs expect in /dev and the kernel does not make.
var links = []struct{ target, path string }{
	{"/proc/self/fd", "/dev/fd"},
	{"/proc/self/fd/0", "/dev/stdin"},
	{"/proc/self/fd/1", "/dev/stdout"},
	{"/proc/self/fd/2", "/dev/stderr"},
}

// Prepare makes a machine of a kernel that has just started, after Begin: file systems, limits, loopback, and the drivers without
// which there is no carrier.
func Prepare(k sys.Kernel, args *Args) error {
	words, err := readWords(k)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if err := m.make(k); err != nil {
			return err
		}
	}
	if err := mountControlGroups(k, words.cgroup); err != nil {
		return err
	}
	for _, l := range links {
		if err := k.Symlink(l.target, l.path); err != nil {
			return &session.Failure{What: "link " + l.path, Why: err}
		}
	}
	if err := k.OpenStandard(); err != nil {
		return &session.Failure{What: "console", Why: err}
	}
	if err := k.RaiseLimits(); err != nil {
		return &session.Failure{What: "limit of open files", Why: err}
	}
	if err := k.QuietRuntime(); err != nil {
		return &session.Failure{What: "signals and timers", Why: err}
	}
	if words.batch {
		if err := k.InterruptNobody(); err != nil {
			return &session.Failure{What: "scheduling", Why: err}
		}
	}
	if args.CorePattern != "" {
		if err := k.WriteFile("/proc/sys/kernel/core_pattern", args.CorePattern); err != nil {
			return &session.Failure{What: "core dump location", Why: err}
		}
	}
	if err := k.LoopbackUp(); err != nil {
		return &session.Failure{What: "loopback interface", Why: err}
	}
	if !words.receives {
		if err := k.WriteFile(receiveFile, receiveBytes); err != nil {
			return &session.Failure{What: "what a connection may hold", Why: err}
		}
	}
	groups := []string{"boot"}
	if args.Program != nil {
		groups = append(groups, programGroups...)
	}
	for _, group := range groups {
		if err := sys.LoadModules(k, group); err != nil {
			return &session.Failure{What: "drivers", Why: err}
		}
	}
	return nil
}

// programGroups are drivers that the agent loads when they are needed; another agent cannot know of that.
var programGroups = []string{"vsock", "scsi", "pmem", "ext4", "xfs", "erofs", "overlay", "9p", "net"}

func (m *mount) make(k sys.Kernel) error {
	if err := k.Mkdir(m.target, m.mode); err != nil {
		return &session.Failure{What: "folder " + m.target, Why: err}
	}
	// The kernel mounts devtmpfs itself when it is built so and there is a root file system.
	if err := k.Mount(m.fstype, m.target, m.flags, m.data); err != nil && err != syscall.EBUSY {
		return &session.Failure{What: "mounting " + m.fstype + " on " + m.target, Why: err}
	}
	return nil
}

// Shell starts a shell on our standard streams, the console, as the leader of a session that the console controls.
func Shell(k sys.Kernel) error {
	shell, err := k.Spawn(&sys.Command{
		Path: "/bin/sh", Args: []string{"sh"}, Dir: "/", Files: [3]int{0, 1, 2}, Console: true,
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "TERM=linux"},
	})
	if err != nil {
		return &session.Failure{What: "shell", Why: err}
	}
	sys.Close(shell.Event) // it is reaped as an orphan is
	return nil
}
