package sys

import "testing"

func TestAModuleGetsWhatTheKernelsLineSaysForIt(t *testing.T) {
	const line = "quiet scsi_mod.scan=manual scsi_mod.max_luns=8 scsi.x=1 -- scsi_mod.scan=none\n"
	for path, want := range map[string]string{
		"/lib/modules/6.1/scsi_mod.ko": "scan=manual max_luns=8", "/lib/modules/6.1/scsi.ko": "x=1", "/lib/modules/6.1/sd_mod.ko": "", "/mod.ko": "",
	} {
		if got := parameters(line, path); got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
}
