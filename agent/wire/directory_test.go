package wire

import "testing"

func TestADirectoryIsReadAndWhatMakesNoSenseRefused(t *testing.T) {
	d, err := ParseDirectory(`{"MountPath":"/run/a","ShareName":"0","Port":564,"ReadOnly":true,"Other":[1]}`)
	if want := (Directory{"/run/a", "0", 564, true}); err != nil || d != want {
		t.Errorf("%+v, %v", d, err)
	}
	for settings, code := range map[string]HResult{
		`{"MountPath":"/run/a","Port":0}`:                           InvalidArg,
		`{"MountPath":"/run/a"}`:                                    InvalidArg,
		`{"MountPath":"","Port":564}`:                               InvalidArg,
		`{"MountPath":"/","Port":564}`:                              InvalidArg,
		`{"MountPath":"a","Port":564}`:                              InvalidArg,
		`{"MountPath":"/a/../b","Port":564}`:                        InvalidArg,
		`{"MountPath":"/a//b","Port":564}`:                          InvalidArg,
		`{"MountPath":"/a/","Port":564}`:                            InvalidArg,
		`{"MountPath":"/a\u0000","Port":564}`:                       InvalidArg,
		`{"MountPath":"/a","Port":564,"ShareName":"0,cache=loose"}`: InvalidArg,
		`{"MountPath":"/a","Port":564,"ShareName":"0\u0000"}`:       InvalidArg,
		`{"MountPath":"/a","Port":-1}`:                              InvalidJSON,
		`{"MountPath":"/a"`:                                         InvalidJSON,
		``:                                                          InvalidJSON,
	} {
		if _, err := ParseDirectory(settings); CodeOf(err) != code || err == nil {
			t.Errorf("%s: %v", settings, err)
		}
	}
}

func FuzzDirectory(f *testing.F) {
	f.Add(`{"MountPath":"/run/a","ShareName":"0","Port":564,"ReadOnly":true}`)
	f.Fuzz(func(t *testing.T, settings string) {
		if d, err := ParseDirectory(settings); err == nil && (!IsPlace(d.MountPath) || d.Port == 0) {
			t.Errorf("%+v", d)
		}
	})
}
