package sys

import (
	"syscall"
	"unsafe"
)

const (
	onAltStack  = 0x08000000
	hasRestorer = 0x04000000
)

// action is the kernel's struct sigaction.
type action struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// briefHandler returns the addresses of a signal handler that does nothing and of the code that ends it.
func briefHandler() (handler, restorer uintptr)

// noteChildrenBriefly replaces the runtime's handler of SIGCHLD, which changes stacks and looks around before it ignores the signal.
// What the signal is for stays: it ends a wait, after which orphans are reaped.
func noteChildrenBriefly() {
	handler, restorer := briefHandler()
	brief := action{handler: handler, flags: onAltStack | hasRestorer, restorer: restorer}
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGCHLD), uintptr(unsafe.Pointer(&brief)), 0,
		unsafe.Sizeof(brief.mask), 0, 0)
}
