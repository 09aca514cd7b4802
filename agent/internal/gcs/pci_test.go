package gcs

import (
	"testing"

	"utilityvm/agent/wire"
)

func TestADeviceOfTheHostIsWaitedForInItsPlace(t *testing.T) {
	k := controllers()
	appears(k, pciDevices+"/0000:00:12.0/0000:03:04.0/vendor", pciDevices+"/0000:00:12.0/0000:03:03.0/vendor")
	if err := awaitPCI(k, 64); err != nil {
		t.Fatal(err)
	}
	same(t, k, "events", "wait", "wait")
}

func TestADeviceOfTheHostThatDoesNotAppearIsNamedByItsPlace(t *testing.T) {
	for _, place := range []uint32{64, 31 * 15, 1<<32 - 1} {
		if err := awaitPCI(controllers(), place); wire.CodeOf(err) != wire.Timeout {
			t.Error(place, err)
		}
	}
}
