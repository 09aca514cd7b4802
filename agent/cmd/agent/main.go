// The guest agent of a utility VM. As PID 1 it makes a machine of a bare kernel and then serves the host on the guest
// connection until it is told to power off. protocol/SPEC.md.
package main

import (
	"os"
	"runtime"
	"strconv"
	"syscall"

	"utilityvm/agent/internal/boot"
	"utilityvm/agent/internal/logs"
	"utilityvm/agent/internal/session"
	"utilityvm/agent/internal/share"
	"utilityvm/agent/internal/sys"
	"utilityvm/agent/wire"
)

const usage = `The guest agent of a utility VM: runs as PID 1, with the kernel's command line after " -- " as its arguments.
For tests: agent -serve-fd N ARGUMENTS serves the guest connection on the inherited stream socket N and does none of the
duties of PID 1; the machine's random numbers and power are left alone.
`

func init() {
	// The loop stays on the first thread, to which the kernel sends SIGCHLD: that ends its wait, and orphans are reaped
	// without a signal handler.
	runtime.LockOSThread()
}

func main() {
	started := sys.Uptime()
	words := os.Args[1:]
	switch {
	case os.Getpid() == 1:
		os.Exit(first(sys.Linux{}, words, started))
	case len(words) == 1 && words[0] == share.Argument:
		os.Exit(shares(sys.Linux{}))
	case len(words) >= 2 && words[0] == "-serve-fd":
		os.Exit(serve(words[1], words[2:]))
	}
	_, _ = os.Stderr.WriteString(usage)
	os.Exit(2)
}

// first is PID 1: it returns only by powering off.
func first(k sys.Kernel, words []string, started int64) int {
	defer k.PowerOff()
	defer func() {
		if fault := recover(); fault != nil {
			k.Console("fault in the agent: " + describe(fault))
		}
	}()
	if err := run(k, words, started); err != nil {
		k.Console(err.Error())
	}
	return 0
}

func run(k sys.Kernel, words []string, started int64) error {
	if err := boot.Begin(k, words); err != nil {
		return err
	}
	args, err := boot.ParseArgs(words)
	if err != nil {
		return &session.Failure{What: "command line", Why: err}
	}
	if err := boot.Prepare(k, args); err != nil {
		return err
	}
	prepared := sys.Uptime()
	carrier, err := boot.OpenCarrier(k, boot.PortName)
	if err != nil {
		return err
	}
	if args.Shell {
		if err := boot.Shell(k); err != nil {
			return err
		}
	}
	o := options(args)
	o.Boot = wire.BootTimes{Started: started, Prepared: prepared}
	return session.Run(carrier, true, o, logger(args), k)
}

func options(args *boot.Args) session.Options {
	return session.Options{EntropyPort: args.EntropyPort, LogPort: args.LogPort, Program: args.Program}
}

func logger(args *boot.Args) *logs.Logger {
	return logs.New(args.Level, !args.TextLog, sys.WallClock)
}

func describe(fault any) string {
	switch f := fault.(type) {
	case error:
		return f.Error()
	case string:
		return f
	}
	return "unknown"
}

// shares is the process that connects mounts with the host; its standard input is where the agent hands it sockets.
func shares(k sys.Kernel) int {
	carrier, err := boot.OpenCarrier(k, share.PortName)
	if err == nil {
		err = syscall.SetNonblock(0, true)
	}
	if err == nil {
		err = share.Serve(carrier, 0, true)
	}
	if err != nil {
		k.Console("shares: " + err.Error())
		return 1
	}
	return 0
}

// served is the kernel for tests on a machine that is not ours.
type served struct{ sys.Linux }

// AddEntropy implements sys.Kernel.
func (served) AddEntropy([]byte) error { return nil }

// SetClock implements sys.Kernel.
func (served) SetClock(int64, int64) error { return nil }

// Sync implements sys.Kernel.
func (served) Sync() {}

// Console implements sys.Kernel.
func (served) Console(text string) { _, _ = os.Stderr.WriteString("utilityvm: " + text + "\n") }

// serve serves the guest connection on an inherited socket and returns the exit status.
func serve(number string, words []string) int {
	k := served{}
	fail := func(err error) int {
		k.Console(err.Error())
		return 1
	}
	fd, err := strconv.Atoi(number)
	if err != nil {
		return fail(err)
	}
	args, err := boot.ParseArgs(words)
	if err != nil {
		return fail(err)
	}
	syscall.CloseOnExec(fd)
	if err := syscall.SetNonblock(fd, true); err != nil {
		return fail(err)
	}
	if err := session.Run(fd, false, options(args), logger(args), k); err != nil {
		return fail(err)
	}
	return 0
}
