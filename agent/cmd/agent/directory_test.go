package main

import (
	"testing"

	"utilityvm/agent/wire"
)

func (h *host) change(kind string, settings map[string]any) (wire.HResult, string) {
	h.t.Helper()
	return h.refused(wire.ModifySettings, map[string]any{"Request": map[string]any{
		"ResourceType": "MappedDirectory", "RequestType": kind, "Settings": settings,
	}})
}

func TestADirectoryThatCannotBeMountedIsRefusedAndMayBeAskedForAgain(t *testing.T) {
	h := connected(t)
	for _, c := range []struct {
		kind string
		path string
		code wire.HResult
	}{
		{"Add", "", wire.InvalidArg},
		{"Add", "/proc/none", wire.Fail},
		{"Add", "/proc/none", wire.Fail}, // nothing has remained of the first
		{"Update", "/run/x", wire.NotFound},
		{"PreAdd", "/run/x", wire.NotImpl},
	} {
		if code, text := h.change(c.kind, map[string]any{"MountPath": c.path, "Port": 564}); code != c.code {
			t.Errorf("%s %q: %#x %s", c.kind, c.path, uint32(code), text)
		}
	}
}
