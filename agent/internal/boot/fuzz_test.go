package boot

import (
	"strings"
	"testing"
)

// FuzzArgs reads whatever the kernel's command line may hold. What is taken must be complete.
func FuzzArgs(f *testing.F) {
	for _, line := range []string{
		"-e 1 /bin/vsockexec -e 109 /bin/gcs -v4 -log-format json -loglevel debug",
		"-e 1 /bin/vsockexec -o 0x6d /bin/gcs",
		"-e 1 /bin/vsockexec -i 2 -o 3 -e 4 /bin/other -v4",
		"-e 0 /bin/vsockexec /bin/gcs -scrub-logs=false -core-dump-location /x -disable-time-sync=true",
	} {
		f.Add(line, false)
		f.Add("sh -c "+line+" & exec sh", true)
	}
	f.Fuzz(func(t *testing.T, line string, shell bool) {
		words := strings.Split(line, " ")
		if parts := strings.SplitN(line, " ", 3); shell && len(parts) == 3 {
			words = parts
		}
		args, err := ParseArgs(words)
		if err == nil && (args == nil || args.Level < 0 || args.Program == nil && !strings.Contains(line, ourGCS)) {
			t.Fatalf("%q: %+v", words, args)
		}
		if err != nil && err.Error() == "" {
			t.Fatalf("%q: an error that says nothing", words)
		}
	})
}
