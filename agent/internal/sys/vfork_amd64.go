package sys

import (
	"runtime"
	"syscall"
	"unsafe"
)

// syscall.ForkExec clears some sixty signal handlers one by one in the child and brings the child's error back through
// a pipe. Under software emulation that is half a millisecond of every process that is started. clone3 clears the
// handlers itself and hands out the pidfd, and a child that shares our memory can simply write its error down.

const (
	cloneVM          = 0x100
	clonePidfd       = 0x1000
	cloneVfork       = 0x4000
	cloneClearSighnd = 0x100000000
	sysDup3          = 292
)

// cloneArgs is the kernel's struct clone_args, as far as version 0 goes.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls uint64
}

// step is one system call of the child.
type step struct{ call, a, b, c uintptr }

// fault is what the child leaves behind: the error, and how many steps were left.
type fault struct{ errno, left uintptr }

// vfork makes a child that performs the steps, the last of which executes its program, and returns once it has done so
// or has failed.
func vfork(clone *cloneArgs, size uintptr, steps *step, count uintptr, fault *fault) (pid, errno uintptr)

// spawn starts c. The error is ENOSYS where a sandbox forbids clone3.
func spawn(c *Command) (Child, error) {
	path, err := syscall.BytePtrFromString(c.Path)
	if err != nil {
		return Child{}, err
	}
	dir, err := syscall.BytePtrFromString(c.Dir)
	if err != nil {
		return Child{}, err
	}
	args, err := syscall.SlicePtrFromStrings(c.Args)
	if err != nil {
		return Child{}, err
	}
	env, err := syscall.SlicePtrFromStrings(c.Env)
	if err != nil {
		return Child{}, err
	}
	steps := childSteps(c, dir)
	steps = append(steps, step{syscall.SYS_EXECVE, address(unsafe.Pointer(path)), address(unsafe.Pointer(&args[0])), address(unsafe.Pointer(&env[0]))})
	event, wrong := new(int32), new(fault)
	clone := &cloneArgs{
		flags:      cloneVM | cloneVfork | clonePidfd | cloneClearSighnd,
		pidfd:      uint64(address(unsafe.Pointer(event))),
		exitSignal: uint64(syscall.SIGCHLD),
	}
	pid, errno := vfork(clone, unsafe.Sizeof(*clone), &steps[0], uintptr(len(steps)), wrong)
	runtime.KeepAlive([]any{path, dir, args, env, event, c})
	switch {
	case errno != 0:
		return Child{}, syscall.Errno(errno)
	case wrong.errno != 0:
		Close(int(*event))
		bury(int(pid))
		return Child{}, syscall.Errno(wrong.errno)
	}
	return Child{int(pid), int(*event)}, nil
}

// childSteps lists what the child does before it executes the program.
func childSteps(c *Command, dir *byte) []step {
	steps := append(make([]step, 0, 12), step{call: syscall.SYS_SETSID})
	for target, fd := range c.Files {
		if fd != target {
			steps = append(steps, step{sysDup3, uintptr(fd), uintptr(target), 0})
		}
	}
	if c.Console {
		steps = append(steps, step{call: syscall.SYS_IOCTL, b: syscall.TIOCSCTTY})
	}
	if u := c.User; u != nil {
		var groups uintptr
		if len(u.Groups) > 0 {
			groups = address(unsafe.Pointer(&u.Groups[0]))
		}
		steps = append(steps,
			step{call: syscall.SYS_SETGROUPS, a: uintptr(len(u.Groups)), b: groups},
			step{call: syscall.SYS_SETGID, a: uintptr(u.GID)},
			step{call: syscall.SYS_SETUID, a: uintptr(u.UID)})
	}
	return append(steps, step{call: syscall.SYS_CHDIR, a: address(unsafe.Pointer(dir))})
}

// address turns a pointer into a number for the kernel. Whoever calls it keeps the object alive.
func address(p unsafe.Pointer) uintptr { return uintptr(p) }

// bury waits for a child that is ending.
func bury(pid int) {
	for {
		_, _, errno := syscall.RawSyscall6(syscall.SYS_WAIT4, uintptr(pid), 0, 0, 0, 0, 0)
		if errno != syscall.EINTR {
			return
		}
	}
}
