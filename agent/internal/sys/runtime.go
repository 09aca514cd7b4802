package sys

import (
	"strconv"
	"syscall"
)

// slack is how late the timers of the runtime's own threads may be, in nanoseconds: a few ticks of the kernel's clock.
const slack = "10000000"

// QuietRuntime implements Kernel.
//
// After each rest one of the runtime's threads looks after the others every 20 microseconds for a while. Such a timer is set and
// served for each look, which under software emulation takes longer than the look; late ones are served with the kernel's ticks.
func (k Linux) QuietRuntime() error {
	noteChildrenBriefly()
	self := strconv.Itoa(syscall.Gettid())
	threads, err := k.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, thread := range threads {
		if thread != self {
			if err := k.WriteFile("/proc/"+thread+"/timerslack_ns", slack); err != nil {
				return err
			}
		}
	}
	return nil
}
