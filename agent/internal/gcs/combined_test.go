package gcs

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"utilityvm/agent/internal/sys/systest"
	"utilityvm/agent/wire"
)

var layers = wire.Layers{Root: "/run/gcs/c/c/rootfs", Scratch: "/s", Paths: []string{"/l/1", "/l/0"}}

const overlay = "lowerdir=/l/1:/l/0,upperdir=/s/upper,workdir=/s/work"

func TestLayersAreCombined(t *testing.T) {
	k := &systest.Kernel{Files: map[string]string{"/etc/utilityvm/modules": "overlay: /overlay.ko\n"}}
	data, err := overlayData(&layers)
	if err != nil || data != overlay {
		t.Fatal(data, err)
	}
	if err := combine(k, &layers, data); err != nil {
		t.Fatal(err)
	}
	same(t, k, "module /overlay.ko", "mkdir /run 755", "mkdir /run/gcs 755", "mkdir /run/gcs/c 755", "mkdir /run/gcs/c/c 755",
		"new folder /run/gcs/c/c/rootfs 755", "mkdir /s 755", "new folder /s/upper 755", "mkdir /s 755", "new folder /s/work 755",
		"mount overlay overlay /run/gcs/c/c/rootfs 0 "+overlay)
}

func TestWithoutAScratchFolderNothingCanBeWritten(t *testing.T) {
	for paths, want := range map[string]string{"/a /b": "mount overlay overlay /r 1 lowerdir=/a:/b", "/a": "bind /a /r true"} {
		k, l := &systest.Kernel{}, wire.Layers{Root: "/r", Paths: strings.Fields(paths)}
		data, err := overlayData(&l)
		if err == nil {
			err = combine(k, &l, data)
		}
		if err != nil || k.Calls[len(k.Calls)-1] != want {
			t.Errorf("%q %v", k.Calls, err)
		}
	}
}

func TestOfAFailedCombinationOnlyWhatItMadeIsRemoved(t *testing.T) {
	mount := "mount overlay overlay /run/gcs/c/c/rootfs 0 " + overlay
	k := &systest.Kernel{Fail: map[string]error{mount: syscall.EINVAL, "new folder /s/upper 755": syscall.EEXIST}}
	err := combine(k, &layers, overlay)
	if wire.CodeOf(err) != wire.Fail || !strings.Contains(err.Error(), "overlayfs /run/gcs/c/c/rootfs: invalid argument") {
		t.Error(err)
	}
	var removed []string
	for _, call := range k.Calls {
		if strings.HasPrefix(call, "rmdir") || strings.HasPrefix(call, "remove") {
			removed = append(removed, call)
		}
	}
	if want := "[rmdir /s/work rmdir /run/gcs/c/c/rootfs]"; fmt.Sprint(removed) != want {
		t.Errorf("%s", removed)
	}
}

func TestPathsOfLayersThatCannotBeTold(t *testing.T) {
	many := make([]string, 400)
	for i := range many {
		many[i] = fmt.Sprintf("/run/layers/%d", i)
	}
	for want, l := range map[string]wire.Layers{
		"at least one":     {Root: "/r"},
		"400 layers take":  {Root: "/r", Paths: many},
		"in it: '/a:b'":    {Root: "/r", Paths: []string{"/a:b", "/c"}},
		"in it: 'a'":       {Root: "/r", Paths: []string{"a"}},
		"in it: '/s,x'":    {Root: "/r", Paths: []string{"/a"}, Scratch: "/s,x"},
		"in it: '/a/../b'": {Root: "/r", Paths: []string{"/a/../b"}},
		"in it: ''":        {Root: "/r", Paths: []string{""}},
	} {
		l := l
		if _, err := overlayData(&l); wire.CodeOf(err) != wire.InvalidArg || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
