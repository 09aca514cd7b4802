package boot

import (
	"errors"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"utilityvm/agent/internal/logs"
	"utilityvm/agent/internal/session"
	"utilityvm/agent/internal/sys/systest"
)

const (
	modulesFile = "/etc/utilityvm/modules"
	cmdline     = "/proc/cmdline"
)

// prepare is the whole of the set-up.
func prepare(k *systest.Kernel, args *Args) error {
	if err := Begin(k, nil); err != nil {
		return err
	}
	return Prepare(k, args)
}

func TestTheMachineIsPreparedInOrder(t *testing.T) {
	k := &systest.Kernel{Files: map[string]string{cmdline: "quiet", modulesFile: "net: /n.ko\nboot: /a.ko /b.ko\n\nother: /c.ko\n"}}
	if err := prepare(k, &Args{CorePattern: "/var/core"}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"mkdir /dev 755", "mount devtmpfs /dev",
		"mkdir /proc 555", "mount proc /proc",
		"mkdir /sys 555", "mount sysfs /sys",
		"mkdir /dev/pts 755", "mount devpts /dev/pts",
		"mkdir /dev/shm 1777", "mount tmpfs /dev/shm",
		"mkdir /run 755", "mount tmpfs /run",
		"mkdir /tmp 1777", "mount tmpfs /tmp",
		"mkdir /sys/fs/cgroup 755", "mount cgroup2 /sys/fs/cgroup",
		"symlink /proc/self/fd /dev/fd", "symlink /proc/self/fd/0 /dev/stdin",
		"symlink /proc/self/fd/1 /dev/stdout", "symlink /proc/self/fd/2 /dev/stderr",
		"standard streams", "limits", "quiet runtime", "write /proc/sys/kernel/core_pattern /var/core", "loopback",
		"write /proc/sys/net/ipv4/tcp_rmem 4096 131072 6291456",
		"module /a.ko", "module /b.ko",
	}
	if !reflect.DeepEqual(k.Calls, want) {
		t.Errorf("got  %q\nwant %q", k.Calls, want)
	}
}

// Every step may fail; each failure stops the boot there and says what and why.
func TestEveryStepThatFailsIsNamed(t *testing.T) {
	files := map[string]string{cmdline: "quiet\n", modulesFile: "boot: /a.ko /b.ko\n"}
	good := &systest.Kernel{Files: files}
	if err := prepare(good, &Args{CorePattern: "/c"}); err != nil {
		t.Fatal(err)
	}
	for i, step := range good.Calls {
		k := &systest.Kernel{Files: files, Fail: map[string]error{step: syscall.EIO}}
		err := prepare(k, &Args{CorePattern: "/c"})
		if !errors.Is(err, syscall.EIO) || !strings.HasSuffix(err.Error(), ": input/output error") {
			t.Errorf("%s: %v", step, err)
		}
		if len(k.Calls) != i+1 {
			t.Errorf("%s failed and the boot went on: %q", step, k.Calls[i:])
		}
	}
	k := &systest.Kernel{Files: files, Fail: map[string]error{"read " + modulesFile: syscall.EIO}}
	if err := prepare(k, &Args{}); err == nil || err.Error() != "drivers: module "+modulesFile+": input/output error" {
		t.Error(err)
	}
}

func TestWhatIsThereAlreadyIsNoFailure(t *testing.T) {
	k := &systest.Kernel{ // and there is no list of modules
		Files: map[string]string{cmdline: "quiet"}, Fail: map[string]error{"mount devtmpfs /dev": syscall.EBUSY},
	}
	if err := prepare(k, &Args{}); err != nil {
		t.Error(err)
	}
}

func TestControlGroupsOfTheFirstVersionAreMountedWhenTheKernelsLineAsks(t *testing.T) {
	table := "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t1\t1\nmemory\t0\t1\t0\npids\t0\t1\t1\n"
	k := &systest.Kernel{Files: map[string]string{cmdline: "quiet uvm.cgroup=1 -- uvm.x=1", "/proc/cgroups": table}}
	if err := prepare(k, &Args{}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"mkdir /sys/fs/cgroup 755", "mount tmpfs /sys/fs/cgroup",
		"mkdir /sys/fs/cgroup/cpu 755", "mount cgroup /sys/fs/cgroup/cpu",
		"mkdir /sys/fs/cgroup/pids 755", "mount cgroup /sys/fs/cgroup/pids",
	}
	if got := k.Calls[14:20]; !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	k = &systest.Kernel{Files: map[string]string{cmdline: "uvm.schedule=batch uvm.cgroup=2"}}
	if err := prepare(k, &Args{}); err != nil || k.Calls[15] != "mount cgroup2 /sys/fs/cgroup" {
		t.Errorf("%v %q", err, k.Calls)
	}
}

func TestNobodyIsInterruptedWhereTheKernelsLineSaysSo(t *testing.T) {
	for line, want := range map[string]bool{"quiet": false, "uvm.schedule=batch": true, "quiet -- uvm.schedule=batch": false} {
		k := &systest.Kernel{Files: map[string]string{cmdline: line}}
		if err := prepare(k, &Args{}); err != nil || strings.Contains(strings.Join(k.Calls, "\n"), "interrupt nobody") != want {
			t.Errorf("%s: %v %q", line, err, k.Calls)
		}
	}
	k := &systest.Kernel{Files: map[string]string{cmdline: "uvm.schedule=batch"}, Fail: map[string]error{"interrupt nobody": syscall.EPERM}}
	if err := prepare(k, &Args{}); err == nil || err.Error() != "scheduling: operation not permitted" {
		t.Error(err)
	}
}

func TestHowMuchAConnectionMayHoldIsTheUsersToSay(t *testing.T) {
	for line, ours := range map[string]bool{
		"quiet": true, "quiet -- sysctl.net.ipv4.tcp_rmem=1": true,
		`sysctl.net.ipv4.tcp_rmem="4096 8192 16384" quiet`: false, `quiet "sysctl.net.ipv4.tcp_rmem=4096 8192 16384"`: false,
		"sysctl/net/ipv4/tcp_rmem=1": false, "sysctl.net.ipv4.tcp_rmem_max=1": true,
	} {
		k := &systest.Kernel{Files: map[string]string{cmdline: line}}
		if err := prepare(k, &Args{}); err != nil || strings.Contains(strings.Join(k.Calls, "\n"), "tcp_rmem") != ours {
			t.Errorf("%s: %v %q", line, err, k.Calls)
		}
	}
}

func TestWordsForUsThatTheKernelsLineMayNotHaveAreNamed(t *testing.T) {
	for _, word := range []string{"uvm.cgroup=3", "uvm.cgroup", "uvm.cgroups=1", "uvm.x", "uvm.schedule=fifo"} {
		k := &systest.Kernel{Files: map[string]string{cmdline: "quiet " + word + " panic=-1"}}
		if err := prepare(k, &Args{}); err == nil || !strings.Contains(err.Error(), "unknown word "+word+";") {
			t.Errorf("%s: %v", word, err)
		}
	}
	for _, missing := range []string{cmdline, "/proc/cgroups"} {
		k := &systest.Kernel{Files: map[string]string{cmdline: "uvm.cgroup=1"}, Fail: map[string]error{"read " + missing: syscall.EIO}}
		if err := prepare(k, &Args{}); err == nil || err.Error() != missing+": input/output error" {
			t.Errorf("%s: %v", missing, err)
		}
	}
}

func TestAnotherAgentFindsEveryDriverLoaded(t *testing.T) {
	k := &systest.Kernel{Files: map[string]string{cmdline: "", modulesFile: "boot: /a.ko\nvsock: /v.ko\nnet: /n.ko\n"}}
	if err := prepare(k, &Args{Program: &session.Program{Argv: []string{"/bin/other"}}}); err != nil {
		t.Fatal(err)
	}
	if got, want := k.Calls[len(k.Calls)-3:], []string{"module /a.ko", "module /v.ko", "module /n.ko"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
}

const ports = "/sys/class/virtio-ports/"

func TestTheCarrierIsFoundByItsName(t *testing.T) {
	k := &systest.Kernel{Files: map[string]string{ports + "vport0p1/name": "org.other\n", ports + "vport0p2/name": PortName + "\n"}}
	fd, err := OpenCarrier(k, PortName)
	if err != nil || fd != 1000 || !reflect.DeepEqual(k.Calls, []string{"events", "open /dev/vport0p2"}) {
		t.Errorf("%d %v %q", fd, err, k.Calls)
	}
}

func TestTheCarrierMayComeLate(t *testing.T) {
	k := &systest.Kernel{Files: map[string]string{}, News: []map[string]string{
		{}, {ports + "vport0p1/dev": "1"}, {ports + "vport0p1/name": PortName},
	}}
	if _, err := OpenCarrier(k, PortName); err != nil || !reflect.DeepEqual(k.Calls, []string{"events", "wait", "wait", "wait", "open /dev/vport0p1"}) {
		t.Errorf("%v %q", err, k.Calls)
	}
}

func TestACarrierThatDoesNotComeIsNamed(t *testing.T) {
	k := &systest.Kernel{Files: map[string]string{ports + "vport0p1/name": "org.other\n"}}
	if _, err := OpenCarrier(k, PortName); err == nil || !strings.Contains(err.Error(), PortName) {
		t.Error(err)
	}
	k = &systest.Kernel{Files: map[string]string{ports + "vport0p1/name": PortName}, Fail: map[string]error{"open /dev/vport0p1": syscall.EBUSY}}
	if _, err := OpenCarrier(k, PortName); !errors.Is(err, syscall.EBUSY) {
		t.Error(err)
	}
}

func TestTheShellHasTheConsole(t *testing.T) {
	k := &systest.Kernel{}
	if err := Shell(k); err != nil || len(k.Spawned) != 1 || !k.Spawned[0].Console || k.Spawned[0].Files != [3]int{0, 1, 2} {
		t.Errorf("%v %+v", err, k.Spawned)
	}
}

func TestCommandLinesOfTheOriginal(t *testing.T) {
	tail := " /bin/gcs -v4 -log-format json -loglevel debug"
	for line, want := range map[string]Args{
		"-e 1 /bin/vsockexec -e 109" + tail:        {EntropyPort: 1, LogPort: 109, Level: logs.Debug},
		"-e 1 /bin/vsockexec -o 109 -e 109" + tail: {EntropyPort: 1, LogPort: 109, Level: logs.Debug},
		"-e 1 /bin/vsockexec -o 7" + tail:          {EntropyPort: 1, LogPort: 7, Level: logs.Debug},
		"-e 1 /bin/vsockexec" + tail:               {EntropyPort: 1, Level: logs.Debug},
		"/bin/vsockexec" + tail:                    {Level: logs.Debug},
		"/bin/vsockexec /bin/gcs -v4":              {Level: logs.Info},
		"-e 1 /bin/vsockexec -i 5 -o 109 -e 109 /bin/other -v4 -x": {EntropyPort: 1, Level: logs.Info,
			Program: &session.Program{Argv: []string{"/bin/other", "-v4", "-x"}, Ports: [3]uint32{5, 109, 109}}},
		"/bin/vsockexec /bin/gcs --log-format=text -loglevel=warning -disable-time-sync -scrub-logs=false -core-dump-location /c": {
			Level: logs.Warning, TextLog: true, CorePattern: "/c"},
	} {
		if got, err := ParseArgs(strings.Fields(line)); err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: %+v %v", line, got, err)
		}
	}
	// The shell form: its command is one word, as the kernel passes it.
	for _, command := range []string{"/bin/vsockexec -e 109" + tail + " & exec sh", "/bin/vsockexec -e 109" + tail + "&exec sh "} {
		got, err := ParseArgs([]string{"-e", "1", "sh", "-c", command})
		if want := (Args{EntropyPort: 1, LogPort: 109, Level: logs.Debug, Shell: true}); err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: %+v %v", command, got, err)
		}
	}
}

func TestCommandLinesThatCannotBeCarriedOut(t *testing.T) {
	for _, words := range [][]string{
		nil,
		{"-e"},
		{"-e", "x", "/bin/vsockexec", "/bin/gcs"},
		{"-e", "0", "/bin/vsockexec", "/bin/gcs"},
		{"-d", "sh"},
		{"/bin/gcs"},
		{"/bin/vsockexec"},
		{"/bin/vsockexec", "other"},
		{"/bin/vsockexec", "-i", "5", "/bin/gcs"},
		{"/bin/vsockexec", "-x", "1", "/bin/gcs"},
		{"/bin/vsockexec", "/bin/gcs", "-logfile", "/x"},
		{"/bin/vsockexec", "/bin/gcs", "-loglevel", "loud"},
		{"/bin/vsockexec", "/bin/gcs", "-log-format", "xml"},
		{"/bin/vsockexec", "/bin/gcs", "-scrub-logs"},
		{"/bin/vsockexec", "/bin/gcs", "-scrub-logs=true"},
		{"/bin/vsockexec", "/bin/gcs", "-v4=false"},
		{"/bin/vsockexec", "/bin/gcs", "word"},
		{"sh", "-c", "/bin/vsockexec /bin/gcs"},
		{"sh", "-c", "/bin/vsockexec /bin/gcs; exec sh"},
		{"sh", "-c", "-e 1 /bin/vsockexec /bin/gcs & exec sh"},
		{"sh", "-c", "'/bin/vsockexec /bin/gcs & exec sh"},
		{"sh", "-i"},
	} {
		if got, err := ParseArgs(words); err == nil {
			t.Errorf("%q: %+v", words, got)
		}
	}
}
