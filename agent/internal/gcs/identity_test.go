package gcs

import (
	"syscall"
	"testing"

	"utilityvm/agent/internal/sys/systest"
	"utilityvm/agent/wire"
)

func TestAMachineThatGoesOnAsAnotherGetsTheTime(t *testing.T) {
	k := &systest.Kernel{}
	if err := become(k, `{"Seconds":4000000000,"Nanoseconds":999999999}`); err != nil {
		t.Fatal(err)
	}
	same(t, k, "clock 4000000000 999999999")
}

func TestWhatIsNoTimeIsRefused(t *testing.T) {
	k := &systest.Kernel{}
	for _, settings := range []string{"", `{"Seconds":0,"Nanoseconds":5}`, `{"Seconds":1,"Nanoseconds":1000000000}`, `{"Seconds":-1}`, `{`} {
		if err := become(k, settings); err == nil {
			t.Errorf("%s was taken", settings)
		}
	}
	same(t, k)
}

func TestAClockThatCannotBeSetIsTold(t *testing.T) {
	k := &systest.Kernel{Fail: map[string]error{"clock 1 0": syscall.EPERM}}
	if err := become(k, `{"Seconds":1}`); wire.CodeOf(err) != wire.CodeOf(syscall.EPERM) || err == nil {
		t.Error(err)
	}
}
