//go:build !amd64

package sys

import "syscall"

// spawn has no short way here yet.
func spawn(*Command) (Child, error) { return Child{}, syscall.ENOSYS }
