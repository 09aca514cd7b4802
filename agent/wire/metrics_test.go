package wire

import (
	"encoding/json"
	"math"
	"testing"
)

func TestMetricsFitIntoAFrameHoweverMuchThereIs(t *testing.T) {
	const most = math.MaxUint64
	m := &Metrics{PIDs: most, PIDLimit: most, CPUTotal: most, CPUKernel: most, CPUUser: most, Periods: most, Throttled: most, ThrottledTime: most,
		Memory: map[string]uint64{}, Usage: MemoryLimit{most, most, most, most}, Swap: MemoryLimit{most, most, most, most},
		Kernel: MemoryLimit{most, most, most, most}, OOMKills: most}
	for _, name := range memoryNames {
		m.Memory[name] = most
	}
	for i := 0; i < 64; i++ {
		m.Bytes = append(m.Bytes, IOEntry{4095, 1 << 20, most, most})
		m.Operations = append(m.Operations, IOEntry{4095, 1 << 20, most, most})
	}
	p := &Properties{Metrics: m}
	text := AppendProperties(nil, p)
	body := AppendResponse(nil, Response{Member: "Properties", Text: string(text)}, NullGUID)
	if !json.Valid(text) || !json.Valid(body) || FrameHeaderSize+len(body) > MaxFrame {
		t.Errorf("%d bytes", len(body))
	}
	var whole struct{ Properties string }
	if err := json.Unmarshal(body, &whole); err != nil || whole.Properties != string(text) {
		t.Errorf("the text was cut: %v", err)
	}
}
