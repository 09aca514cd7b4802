package gcs

import (
	"fmt"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"utilityvm/agent/internal/loop"
	"utilityvm/agent/internal/sys/systest"
	"utilityvm/agent/wire"
)

func head(magic string, offset int) string {
	return strings.Repeat("\x00", offset) + magic + strings.Repeat("\x00", 100)
}

var (
	ext4  = head("\x53\xef", 1080)
	erofs = head("\xe2\xe1\xf5\xe0", 1024)
	xfs   = head("XFSB", 0)
)

const (
	scans  = "write /sys/module/scsi_mod/parameters/scan sync"
	scan9  = "write /sys/class/scsi_host/host9/scan 0 0 -"
	scan10 = "write /sys/class/scsi_host/host10/scan 0 0 -"
)

func bdi(name string) string { return "/sys/class/block/" + name + "/bdi/read_ahead_kb" }

// controllers returns a kernel with two of QEMU's SCSI controllers beside another, and modules for them.
func controllers() *systest.Kernel {
	return &systest.Kernel{Files: map[string]string{
		"/sys/class/scsi_host/host0/proc_name":  "ahci\n",
		"/sys/class/scsi_host/host9/proc_name":  "virtio_scsi\n",
		"/sys/class/scsi_host/host10/proc_name": "virtio_scsi\n",
		"/etc/utilityvm/modules":                "scsi: /scsi.ko\next4: /ext4.ko\npmem: /pmem.ko\nerofs: /erofs.ko\nxfs: /xfs.ko\n",
		"/dev/sda":                              ext4,
		"/dev/sdb":                              xfs,
		bdi("sda"):                              "128\n",
		bdi("sdb"):                              "128\n",
		bdi("pmem0"):                            "128\n",
		bdi("pmem4"):                            "128\n",
	}}
}

func appears(k *systest.Kernel, files ...string) {
	for _, path := range files {
		k.News = append(k.News, map[string]string{path: ""})
	}
}

func same(t *testing.T, k *systest.Kernel, want ...string) {
	t.Helper()
	if !reflect.DeepEqual(k.Calls, want) {
		t.Errorf("got  %q\nwant %q", k.Calls, want)
	}
}

func TestADiskIsLookedForAndMountedWhenItAppears(t *testing.T) {
	k := controllers()
	appears(k, "/sys/unrelated", "/sys/bus/scsi/devices/10:0:0:7/block/sda")
	if err := addDisk(k, &loop.Once{}, &wire.Disk{MountPath: "/run/a/b", Controller: 1, Lun: 7}); err != nil {
		t.Fatal(err)
	}
	same(t, k, "module /scsi.ko", scans, scan9, scan10, "nodes", "wait", "wait",
		"module /ext4.ko", "mkdir /run 700", "mkdir /run/a 700", "mkdir /run/a/b 700", "mount /dev/sda ext4 /run/a/b 0 ")
}

func TestTheDriverScansFromTheFirstDiskOnAndLooksOnceForThoseThatAreThereAlready(t *testing.T) {
	k, driver := controllers(), &loop.Once{}
	k.Files["/sys/bus/scsi/devices/9:0:0:0/block/sda"] = ""
	for _, step := range []string{scans, scan10} {
		k.Fail = map[string]error{step: syscall.EIO}
		if err := addDisk(k, driver, &wire.Disk{}); err == nil {
			t.Errorf("%q failed and was not told", step)
		}
	}
	k.Fail = nil
	for i := 0; i < 2; i++ {
		if err := addDisk(k, driver, &wire.Disk{}); err != nil {
			t.Fatal(err)
		}
	}
	same(t, k, "module /scsi.ko", scans, "module /scsi.ko", scans, scan9, scan10, "module /scsi.ko", scans, scan9, scan10, "nodes", "nodes")
}

func TestADiskIsThereWhenItCanBeOpened(t *testing.T) {
	k := controllers()
	k.Files["/sys/bus/scsi/devices/9:0:0:0/block/sdc"] = ""
	appears(k, "/sys/class/block/sdc/bdi/read_ahead_kb", "/dev/sdc")
	if err := addDisk(k, &loop.Once{}, &wire.Disk{}); err != nil {
		t.Fatal(err)
	}
	same(t, k, "module /scsi.ko", scans, scan9, scan10, "nodes", "events", "wait", "wait")
}

func TestADiskWithoutAPlaceIsOnlyMadeVisible(t *testing.T) {
	k := controllers()
	k.Files["/sys/bus/scsi/devices/9:0:0:0/block/sdb"] = ""
	if err := addDisk(k, &loop.Once{}, &wire.Disk{}); err != nil {
		t.Fatal(err)
	}
	same(t, k, "module /scsi.ko", scans, scan9, scan10, "nodes")
}

func TestOptionsAreTheKernelsTheFileSystemsOrMountsOfTheirOwn(t *testing.T) {
	k := controllers()
	k.Files["/sys/bus/scsi/devices/9:0:0:0/block/sdb"] = ""
	d := wire.Disk{MountPath: "/m", ReadOnly: true, Options: []string{"nodev", "norecovery", "logbufs=8", "rshared", "noexec"}}
	if err := addDisk(k, &loop.Once{}, &d); err != nil {
		t.Fatal(err)
	}
	flags := syscall.MS_NODEV | syscall.MS_NOEXEC | syscall.MS_RDONLY
	shared := syscall.MS_SHARED | syscall.MS_REC
	same(t, k, "module /scsi.ko", scans, scan9, scan10, "nodes", "module /xfs.ko", "mkdir /m 700",
		fmt.Sprintf("mount /dev/sdb xfs /m %x logbufs=8,norecovery", flags), fmt.Sprintf("mount   /m %x ", shared))
}

// Each step may fail: the error says which, and no folder or mount is left.
func TestEveryStepOfMountingThatFailsIsNamed(t *testing.T) {
	d := wire.Disk{MountPath: "/m", Options: []string{"shared"}}
	good := controllers()
	good.Files["/sys/bus/scsi/devices/9:0:0:0/block/sda"] = ""
	if err := addDisk(good, &loop.Once{}, &d); err != nil {
		t.Fatal(err)
	}
	for _, step := range good.Calls {
		k := controllers()
		k.Files["/sys/bus/scsi/devices/9:0:0:0/block/sda"] = ""
		k.Fail = map[string]error{step: syscall.EIO}
		err := addDisk(k, &loop.Once{}, &d)
		if err == nil || !strings.HasSuffix(err.Error(), ": input/output error") {
			t.Errorf("%s: %v", step, err)
		}
		last := k.Calls[len(k.Calls)-1]
		if strings.HasPrefix(step, "mount") && last != "rmdir /m" {
			t.Errorf("%s failed, and then: %s", step, last)
		}
	}
}

func TestADiskThatDoesNotAppearIsAnErrorThatSaysWhich(t *testing.T) {
	k := controllers()
	err := addDisk(k, &loop.Once{}, &wire.Disk{MountPath: "/m", Lun: 3})
	same(t, k, "module /scsi.ko", scans, scan9, scan10, "nodes", "wait", "write /sys/class/scsi_host/host9/scan 0 0 3", "nodes", "wait")
	if wire.CodeOf(err) != wire.Timeout || err.Error() != "disk at controller 0 lun 3 did not appear" {
		t.Error(err)
	}
	if err := addDisk(controllers(), &loop.Once{}, &wire.Disk{Controller: 2}); wire.CodeOf(err) != wire.NotFound {
		t.Error(err)
	}
}

func TestAFileSystemThatIsNotKnownIsRefused(t *testing.T) {
	k := controllers()
	k.Files["/sys/bus/scsi/devices/9:0:0:0/block/sda"], k.Files["/dev/sda"] = "", "nothing"
	if err := addDisk(k, &loop.Once{}, &wire.Disk{MountPath: "/m"}); err == nil || !strings.Contains(err.Error(), "/dev/sda has no file system") {
		t.Error(err)
	}
}

func TestADiskIsTakenOffAndOutAlsoWhenItIsGoneAlready(t *testing.T) {
	for _, gone := range []error{nil, syscall.ENOENT, syscall.EINVAL} {
		k := controllers()
		k.Fail = map[string]error{"unmount /m": gone}
		if err := removeDisk(k, &wire.Disk{MountPath: "/m", Lun: 3}); err != nil {
			t.Fatal(err)
		}
		same(t, k, "unmount /m", "rmdir /m", "write /sys/bus/scsi/devices/9:0:0:3/delete 1")
	}
	k := controllers()
	k.Fail = map[string]error{"write /sys/bus/scsi/devices/9:0:0:0/delete 1": syscall.ENOENT}
	if err := removeDisk(k, &wire.Disk{}); err != nil {
		t.Error(err)
	}
}

func TestADiskThatIsInUseStays(t *testing.T) {
	k := controllers()
	k.Fail = map[string]error{"unmount /m": syscall.EBUSY}
	err := removeDisk(k, &wire.Disk{MountPath: "/m"})
	if err == nil || err.Error() != "unmounting /m: device or resource busy" {
		t.Error(err)
	}
	same(t, k, "unmount /m")
}

func TestADiskThatHasGrownIsLookedAtAgainAndItsFileSystemGrows(t *testing.T) {
	k := controllers()
	k.Files["/sys/bus/scsi/devices/9:0:0:0/block/sda"] = ""
	k.Files["/sys/class/block/sda/size"] = "2048\n"
	if err := growDisk(k, &wire.Disk{MountPath: "/m"}); err != nil {
		t.Fatal(err)
	}
	same(t, k, "write /sys/bus/scsi/devices/9:0:0:0/rescan 1", "grow /m ext4 1048576")
}

// -- persistent memory --

func TestADeviceIsFoundByItsPlaceAndMountedWithoutThePageCache(t *testing.T) {
	k := controllers()
	k.Files["/dev/pmem4"] = erofs
	path := pciDevices + "/0000:00:11.0/0000:02:0a.0/virtio9/ndbus3/region3/namespace3.0/block/pmem4"
	k.Files[pciDevices+"/0000:00:11.0/0000:02:0a.0/virtio9/ndbus3/region3/namespace_seed"] = ""
	appears(k, pciDevices+"/0000:00:11.0/0000:02:0b.0/virtio8/driver", path)
	if err := MountPMem(k, 40, "/p"); err != nil {
		t.Fatal(err)
	}
	same(t, k, "module /pmem.ko", "nodes", "wait", "wait", "module /erofs.ko", "mkdir /p 700",
		fmt.Sprintf("mount /dev/pmem4 erofs /p %x dax=always", syscall.MS_RDONLY))
}

func TestWithoutDAXALayerIsMountedAllTheSame(t *testing.T) {
	k := controllers()
	k.Files["/dev/pmem0"] = ext4
	k.Files[pciDevices+"/0000:00:10.0/0000:01:01.0/virtio9/ndbus0/region0/namespace0.0/block/pmem0"] = ""
	with := fmt.Sprintf("mount /dev/pmem0 ext4 /p %x dax,noload", syscall.MS_RDONLY)
	k.Fail = map[string]error{with: syscall.EINVAL}
	if err := MountPMem(k, 0, "/p"); err != nil {
		t.Fatal(err)
	}
	same(t, k, "module /pmem.ko", "nodes", "module /ext4.ko", "mkdir /p 700", with,
		fmt.Sprintf("mount /dev/pmem0 ext4 /p %x noload", syscall.MS_RDONLY))
}

func TestADeviceThatDoesNotAppearIsAnError(t *testing.T) {
	if err := MountPMem(controllers(), 100, "/p"); wire.CodeOf(err) != wire.Timeout {
		t.Error(err)
	}
}
