package gcs

import (
	"syscall"
	"testing"

	"utilityvm/agent/internal/loop"
	"utilityvm/agent/internal/process"
	"utilityvm/agent/internal/sys/systest"
	"utilityvm/agent/wire"
)

// hooked runs the hooks of a machine and returns what came of them, and whether anything has.
func hooked(t *testing.T, k *systest.Kernel) (err error, done bool) {
	t.Helper()
	l, err := loop.New()
	if err != nil {
		t.Fatal(err)
	}
	processes, err := process.NewTable(l, k)
	if err != nil {
		t.Fatal(err)
	}
	runHooks(l, k, processes, func(failure error) { err, done = failure, true })
	return err, done
}

func TestAMachineWithoutHooksIsReadyAtOnce(t *testing.T) {
	k := &systest.Kernel{}
	if err, done := hooked(t, k); err != nil || !done {
		t.Errorf("%v %v", err, done)
	}
	same(t, k)
}

func TestTheFirstHookByNameIsRunFirstAndOneThatCannotBeRunIsToldByItsPath(t *testing.T) {
	first := hooksFolder + "/10-first"
	k := &systest.Kernel{
		Files: map[string]string{hooksFolder + "/20-second": "program", first: "program"},
		Fail:  map[string]error{"spawn " + first: syscall.EACCES},
	}
	err, done := hooked(t, k)
	if !done || wire.CodeOf(err) != wire.Fail || err.Error() != first+": permission denied" {
		t.Errorf("%v %v", err, done)
	}
	same(t, k, "spawn "+first)
}
