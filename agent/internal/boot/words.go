package boot

import (
	"strings"

	"utilityvm/agent/internal/session"
	"utilityvm/agent/internal/sys"
)

// prefix begins the words of the kernel's command line that are for us. The kernel takes a word with a dot for a module's and
// minds no more.
const prefix = "uvm."

// receives begins the word by which a user says himself how much a connection may hold; the kernel, which takes slashes for dots
// there, has done so before we start.
const receives = "sysctl.net.ipv4.tcp_rmem"

// words are what the kernel's command line says to us: which version of control groups to mount, whether how much a connection
// may hold is said already, and whether a program that wakes up waits for its turn. On one processor an interruption is two
// switches of address space, after which an emulated processor looks up every address anew: a tenth of a short program's time,
// a quarter of the time of what goes into one.
type words struct {
	cgroup   string
	receives bool
	batch    bool
}

func readWords(k sys.Kernel) (words, error) {
	w := words{cgroup: "2"}
	line, err := k.ReadFile("/proc/cmdline")
	if err != nil {
		return w, &session.Failure{What: "/proc/cmdline", Why: err}
	}
	for _, word := range strings.Fields(string(line)) {
		switch word {
		case "--":
			return w, nil
		case prefix + "cgroup=1", prefix + "cgroup=2":
			w.cgroup = word[len(word)-1:]
		case prefix + "schedule=batch":
			w.batch = true
		default:
			if strings.HasPrefix(word, prefix) {
				why := ArgsError("unknown word " + word + "; there is uvm.cgroup=1, uvm.cgroup=2 and uvm.schedule=batch")
				return w, &session.Failure{What: "kernel command line", Why: why}
			}
			said := strings.ReplaceAll(strings.TrimPrefix(word, `"`), "/", ".")
			w.receives = w.receives || strings.HasPrefix(said, receives+"=")
		}
	}
	return w, nil
}
