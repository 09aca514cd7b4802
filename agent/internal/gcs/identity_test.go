package gcs

import (
	"strings"
	"syscall"
	"testing"

	"utilityvm/agent/internal/sys/systest"
	"utilityvm/agent/wire"
)

func TestAMachineThatGoesOnAsAnotherGetsTheTime(t *testing.T) {
	k := &systest.Kernel{}
	if another, err := become(k, `{"Seconds":4000000000,"Nanoseconds":999999999}`); err != nil || another {
		t.Fatal(another, err)
	}
	same(t, k, "clock 4000000000 999999999")
}

func TestWhatIsNoTimeAndNoNameIsRefused(t *testing.T) {
	k := &systest.Kernel{}
	long := `{"Seconds":1,"Hostname":"` + strings.Repeat("h", 65) + `"}`
	for _, settings := range []string{"", long, `{"Seconds":0,"Nanoseconds":5}`, `{"Seconds":1,"Nanoseconds":1000000000}`, `{"Seconds":-1}`, `{`} {
		if _, err := become(k, settings); err == nil {
			t.Errorf("%s was taken", settings)
		}
	}
	same(t, k)
}

func TestAClockThatCannotBeSetIsTold(t *testing.T) {
	k := &systest.Kernel{Fail: map[string]error{"clock 1 0": syscall.EPERM}}
	if _, err := become(k, `{"Seconds":1}`); wire.CodeOf(err) != wire.CodeOf(syscall.EPERM) || err == nil {
		t.Error(err)
	}
}

func TestItGetsAHostnameAndWhereItHasAMachineIDAnotherOne(t *testing.T) {
	const settings = `{"Seconds":1,"Hostname":"vm","MachineID":"0123"}`
	k := &systest.Kernel{}
	if another, err := become(k, settings); err != nil || !another {
		t.Fatal(another, err)
	}
	same(t, k, "clock 1 0", "write /proc/sys/kernel/hostname vm")
	k = &systest.Kernel{Files: map[string]string{"/etc/machine-id": "4567\n"}}
	if _, err := become(k, settings); err != nil || k.Files["/etc/machine-id"] != "0123\n" {
		t.Errorf("%v %q", err, k.Files)
	}
}
