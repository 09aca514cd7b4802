package sys

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestWhatIsBelowAFolderIsRemovedButNotBehindLinksOrMounts(t *testing.T) {
	outside, folder := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(folder+"/a/b", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{outside + "/kept", folder + "/a/b/c", folder + "/d"} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, folder+"/a/link"); err != nil {
		t.Fatal(err)
	}
	var found syscall.Stat_t
	if err := syscall.Lstat(folder, &found); err != nil {
		t.Fatal(err)
	}
	removeBelow(folder, found.Dev+1)
	if _, err := os.Stat(folder + "/a/b/c"); err != nil {
		t.Error("a file of another file system was removed")
	}
	removeBelow(folder, found.Dev)
	if left, _ := filepath.Glob(folder + "/*"); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	if _, err := os.Stat(outside + "/kept"); err != nil {
		t.Error(err)
	}
}
