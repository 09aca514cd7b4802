package boot

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"utilityvm/agent/internal/sys/systest"
)

const pmem0 = "/sys/bus/pci/devices/0000:00:10.0/0000:01:01.0/virtio9/ndbus0/region0/namespace0.0/block/pmem0"

var beginning = []string{
	"mkdir /dev 755", "mount devtmpfs /dev", "mkdir /proc 555", "mount proc /proc", "mkdir /sys 555", "mount sysfs /sys",
}

// initrd returns a kernel in an initial RAM disk, with this command line; device 0 appears after a while.
func initrd(line string) *systest.Kernel {
	return &systest.Kernel{
		Files: map[string]string{
			cmdline:        line,
			modulesFile:    "boot: /pci.ko\npmem: /pmem.ko\next4: /ext4.ko\n",
			"/proc/mounts": "rootfs / rootfs rw,size=1k 0 0\n",
			"/dev/pmem0":   strings.Repeat("\x00", 1080) + "\x53\xef",
		},
		News: []map[string]string{{}, {pmem0: ""}, {"/sys/class/block/pmem0/bdi/read_ahead_kb": "128\n"}},
	}
}

func goneOn(init string, words ...string) []string {
	calls := append([]string{}, beginning...)
	calls = append(calls, "module /pci.ko", "module /pmem.ko", "nodes", "wait", "wait", "events", "wait", "module /ext4.ko",
		"mkdir /newroot 700", fmt.Sprintf("mount /dev/pmem0 ext4 /newroot %x dax,noload", syscall.MS_RDONLY),
		"unmount /sys", "unmount /proc", "unmount /dev", "switch root /newroot")
	return append(calls, strings.Join(append([]string{"exec", init, init}, words...), " "))
}

func TestFromAnInitialRAMDiskTheRootOnDevice0IsGoneOnTo(t *testing.T) {
	words := []string{"-e", "1", "/bin/vsockexec", "/bin/other", "what only other knows"}
	for line, init := range map[string]string{
		"quiet root=/dev/pmem0 ro rootwait init=/sbin/init -- root=/dev/x init=/y": "/sbin/init",
		"root=/dev/sda root=/dev/pmem0\n":                                          "/init",
	} {
		k := initrd(line)
		if err := Begin(k, words); err == nil { // which a kernel that carries out exec would not return
			t.Error("nothing was said of exec")
		}
		if want := goneOn(init, words...); !reflect.DeepEqual(k.Calls, want) {
			t.Errorf("got  %q\nwant %q", k.Calls, want)
		}
	}
}

func TestWithoutARootOrInItThereIsNothingToGoOnTo(t *testing.T) {
	there := initrd("root=/dev/pmem0")
	there.Files["/proc/mounts"] = "/dev/pmem0 / ext4 ro,dax 0 0\nproc /proc proc rw 0 0\n"
	other := initrd("root=/dev/vda")
	other.Files["/proc/mounts"] = "/dev/root / ext4 ro 0 0\n"
	for _, k := range []*systest.Kernel{initrd("quiet"), initrd("quiet -- root=/dev/pmem0"), there, other} {
		if err := Begin(k, nil); err != nil || !reflect.DeepEqual(k.Calls, beginning) {
			t.Errorf("%v %q", err, k.Calls)
		}
	}
}

func TestAnotherRootIsRefusedByName(t *testing.T) {
	k := initrd("root=/dev/pmem0 root=/dev/vda")
	want := "kernel command line: root=/dev/vda: the root can only be /dev/pmem0"
	if err := Begin(k, nil); err == nil || err.Error() != want || !reflect.DeepEqual(k.Calls, beginning) {
		t.Errorf("%v %q", err, k.Calls)
	}
}

// Every step on the way to the root may fail; each failure stops the boot there and says what and why.
func TestEveryStepToTheRootThatFailsIsNamed(t *testing.T) {
	says := map[string]string{"module /pci.ko": "drivers: module /pci.ko: ", "module /ext4.ko": "root: module /ext4.ko: ",
		"nodes": "root: device events: ", "events": "root: device events: ", "mkdir /newroot 700": "root: folder /newroot: ", "unmount /sys": "unmounting /sys: ",
		"switch root /newroot": "making /dev/pmem0 the root: ", "exec /init /init": "/init on /dev/pmem0: "}
	for i, step := range goneOn("/init") {
		if step == "wait" || strings.HasPrefix(step, "mount /dev/pmem0") {
			continue
		}
		k := initrd("root=/dev/pmem0")
		k.Fail = map[string]error{step: syscall.EIO}
		err := Begin(k, nil)
		if !errors.Is(err, syscall.EIO) || err.Error() != says[step]+"input/output error" && says[step] != "" {
			t.Errorf("%s: %v", step, err)
		}
		if len(k.Calls) != i+1 {
			t.Errorf("%s failed and the boot went on: %q", step, k.Calls[i:])
		}
	}
	for _, file := range []string{cmdline, "/proc/mounts"} {
		k := initrd("root=/dev/pmem0")
		k.Fail = map[string]error{"read " + file: syscall.EIO}
		if err := Begin(k, nil); err == nil || err.Error() != file+": input/output error" {
			t.Error(err)
		}
	}
}

func TestARootThatCannotBeMountedIsNamed(t *testing.T) {
	k := initrd("root=/dev/pmem0")
	for _, data := range []string{"dax,noload", "noload"} {
		if k.Fail == nil {
			k.Fail = map[string]error{}
		}
		k.Fail[fmt.Sprintf("mount /dev/pmem0 ext4 /newroot %x %s", syscall.MS_RDONLY, data)] = syscall.EINVAL
	}
	if err := Begin(k, nil); err == nil || err.Error() != "root: mounting /dev/pmem0 as ext4 on /newroot: invalid argument" {
		t.Error(err)
	}
	k = initrd("root=/dev/pmem0")
	k.Files["/dev/pmem0"] = "nothing"
	if err := Begin(k, nil); err == nil || !strings.HasPrefix(err.Error(), "root: /dev/pmem0 has no file system that is known") {
		t.Error(err)
	}
	k = initrd("root=/dev/pmem0")
	k.News = nil
	if err := Begin(k, nil); err == nil || err.Error() != "root: persistent memory device 0 did not appear" {
		t.Error(err)
	}
}
