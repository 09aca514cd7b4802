package main

import (
	"encoding/json"
	"strings"
	"testing"

	"utilityvm/agent/wire"
)

type told struct {
	Memory *struct {
		VirtualMachineMemory struct{ AvailableMemory, AssignedMemory float64 }
	}
	ProcessList []struct{ ProcessId float64 }
}

func (h *host) properties(query string) (p told, text string) {
	h.t.Helper()
	answer := h.call(wire.GetProperties, map[string]any{"Query": query})
	text, _ = answer["Properties"].(string)
	if err := json.Unmarshal([]byte(text), &p); err != nil || answer["Result"] != 0.0 {
		h.t.Fatalf("%v: %v", answer, err)
	}
	return p, text
}

func TestTheMachineTellsItsMemoryAndTheProcessesThatRun(t *testing.T) {
	h := connected(t)
	first := h.spawn(parameters{"CommandArgs": []string{"sleep", "60"}})
	second := h.spawn(parameters{"CommandArgs": []string{"sleep", "60"}})
	p, _ := h.properties(`{"PropertyTypes":["Memory","ProcessList"]}`)
	memory := p.Memory.VirtualMachineMemory
	if memory.AssignedMemory < 1000 || memory.AvailableMemory <= 0 || memory.AvailableMemory > memory.AssignedMemory {
		t.Errorf("memory %v", memory)
	}
	if n := len(p.ProcessList); n != 2 || p.ProcessList[0].ProcessId >= p.ProcessList[1].ProcessId {
		t.Errorf("processes %v", p.ProcessList)
	}
	first.signal(9)
	first.code()
	if p, _ = h.properties(`{"PropertyTypes":["ProcessList"]}`); p.Memory != nil || len(p.ProcessList) != 1 || p.ProcessList[0].ProcessId != second.pid {
		t.Errorf("after one's end: %+v", p)
	}
}

func TestWhatIsNotKnownIsLeftOutWithAWarning(t *testing.T) {
	h := connected(t)
	if _, text := h.properties(`{"PropertyTypes":["CpuGroup"]}`); text != "{}" {
		t.Errorf("told %s", text)
	}
	h.until("a warning", func() bool { return strings.Contains(h.streams[logPort].data.String(), `"unknown property type"`) })
	if _, text := h.properties(`{}`); text != "{}" {
		t.Errorf("told %s", text)
	}
}

func TestAContainerThatIsNotThereHasNoProperties(t *testing.T) {
	h := connected(t)
	if code, _ := h.refused(wire.GetProperties, map[string]any{"ContainerId": "c", "Query": "{}"}); code != wire.SystemNotFound {
		t.Errorf("%#x", code)
	}
	if code, _ := h.refused(wire.DumpStacks, map[string]any{"ContainerId": "c"}); code != wire.SystemNotFound {
		t.Errorf("%#x", code)
	}
}

func TestTheStacksNameTheLoop(t *testing.T) {
	h := connected(t)
	text, _ := h.call(wire.DumpStacks, map[string]any{})["GuestStacks"].(string)
	if !strings.HasPrefix(text, "goroutine ") || !strings.Contains(text, "loop.(*Loop).Run") {
		t.Errorf("%s", text)
	}
}

func TestAMessageWithoutHandlerIsRefusedByItsType(t *testing.T) {
	h := connected(t)
	for _, kind := range []wire.MessageType{0x10100b01, 0x10100e01, 0x10100f01, 0x10100902, 0x10200101} {
		for _, id := range []string{nullGUID, "c"} {
			code, text := h.refused(kind, map[string]any{"ContainerId": id})
			if code != wire.NotImpl || text != "bridge: function not supported, header type: "+wire.Hex(uint32(kind)) {
				t.Errorf("%#x: %#x %s", kind, code, text)
			}
		}
	}
}

func TestTheMachineIsNoContainer(t *testing.T) {
	h := connected(t)
	for _, kind := range []wire.MessageType{wire.Create, wire.Start, wire.DeleteContainerState} {
		if code, text := h.refused(kind, map[string]any{"ContainerConfig": "{}"}); code != wire.NotImpl || !strings.Contains(text, "utility VM") {
			t.Errorf("%#x: %#x %s", kind, code, text)
		}
	}
}

func TestAChangeOfSomethingUnknownIsRefusedByItsName(t *testing.T) {
	h := connected(t)
	request := map[string]any{"RequestType": "Add", "ResourceType": "Cat", "Settings": map[string]any{"Lives": 9}}
	code, text := h.refused(wire.ModifySettings, map[string]any{"Request": request})
	if code != wire.NotImpl || text != "invalid ResourceType 'Cat'" {
		t.Errorf("%#x %s", code, text)
	}
}
