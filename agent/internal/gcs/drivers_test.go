package gcs

import (
	"strings"
	"syscall"
	"testing"

	"utilityvm/agent/internal/sys/systest"
)

const listOfDrivers = "boot: /b.ko\nscsi: /a.ko /s.ko\next4: /e.ko\n9p: /p.ko\noverlay: /o.ko\n"

func TestTheDriversOfContainersAreLoadedInTheOrderOfTheirGroups(t *testing.T) {
	k := &systest.Kernel{Files: map[string]string{"/etc/utilityvm/modules": listOfDrivers}}
	if err := loadAll(k, ofContainers); err != nil {
		t.Fatal(err)
	}
	same(t, k, "module /a.ko", "module /s.ko", "module /e.ko", "module /o.ko")
}

func TestADriverThatCannotBeLoadedIsToldByItsFile(t *testing.T) {
	k := &systest.Kernel{
		Files: map[string]string{"/etc/utilityvm/modules": listOfDrivers},
		Fail:  map[string]error{"module /s.ko": syscall.ENOEXEC},
	}
	if err := loadAll(k, ofContainers); err == nil || !strings.Contains(err.Error(), "/s.ko") {
		t.Error(err)
	}
}
