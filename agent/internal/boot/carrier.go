package boot

import (
	"strings"

	"utilityvm/agent/internal/session"
	"utilityvm/agent/internal/sys"
)

// PortName is the name of the virtio-serial port that carries the guest connection.
const PortName = "org.utilityvm.hvsocket"

const (
	portsFolder = "/sys/class/virtio-ports"
	// maxQuiet is how long the port may take to appear, in milliseconds without any news of a port.
	maxQuiet = 30_000
)

type missing string

func (m missing) Error() string { return string(m) }

// OpenCarrier waits for the port of this name and opens it. Its name comes after its device, in an announcement of its own; so the
// announcements are subscribed to before the first look, and each is a reason to look again.
func OpenCarrier(k sys.Kernel, name string) (int, error) {
	events, err := k.DeviceEvents()
	if err != nil {
		return -1, &session.Failure{What: "device events", Why: err}
	}
	defer sys.Close(events)
	for {
		if device := findPort(k, name); device != "" {
			fd, err := k.OpenPort("/dev/" + device)
			if err != nil {
				return -1, &session.Failure{What: "carrier /dev/" + device, Why: err}
			}
			return fd, nil
		}
		if !k.WaitEvent(events, "virtio-ports", maxQuiet) {
			return -1, &session.Failure{What: "carrier", Why: missing("there is no virtio-serial port named " + name)}
		}
	}
}

// findPort returns the device of the port, or "". A port that goes away meanwhile is none.
func findPort(k sys.Kernel, wanted string) string {
	devices, _ := k.ReadDir(portsFolder)
	for _, device := range devices {
		if name, err := k.ReadFile(portsFolder + "/" + device + "/name"); err == nil && strings.TrimSpace(string(name)) == wanted {
			return device
		}
	}
	return ""
}
