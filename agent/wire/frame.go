package wire

import (
	"encoding/binary"
	"strconv"
)

const (
	// FrameHeaderSize is the length of a GCS frame's header in bytes.
	FrameHeaderSize = 16
	// MaxFrame is the largest frame in bytes, header included.
	MaxFrame = 65536
)

// Frame is one GCS message. Body belongs to whoever made the frame.
type Frame struct {
	Type MessageType
	ID   uint64
	Body []byte
}

// AppendFrame appends a frame whose body is what body appends. The body must fit into MaxFrame.
func AppendFrame(b []byte, kind MessageType, id uint64, body func([]byte) []byte) []byte {
	start := len(b)
	b = body(append(b, make([]byte, FrameHeaderSize)...))
	binary.LittleEndian.PutUint32(b[start:], uint32(kind))
	binary.LittleEndian.PutUint32(b[start+4:], uint32(len(b)-start))
	binary.LittleEndian.PutUint64(b[start+8:], id)
	return b
}

// FrameError says that the peer sent a size that no frame may have. The bridge is broken.
type FrameError struct{ Size uint32 }

func (e *FrameError) Error() string {
	return "invalid message size " + strconv.FormatUint(uint64(e.Size), 10)
}

// FrameReader cuts a byte stream into frames. It keeps at most MaxFrame bytes between calls.
type FrameReader struct {
	kept []byte
	err  error
}

// Feed takes data and calls each with every frame that is now complete; a frame's body is valid during the call only.
// After an error Feed returns that error again.
func (r *FrameReader) Feed(data []byte, each func(Frame)) error {
	for r.err == nil && len(data) > 0 {
		if len(r.kept) == 0 {
			// The common case: whole frames, cut without a copy.
			var size int
			if size, r.err = frameSize(data); r.err == nil && size > 0 && size <= len(data) {
				each(parseFrame(data[:size]))
				data = data[size:]
				continue
			}
			if r.err != nil {
				break
			}
		}
		data = r.fill(data, each)
	}
	return r.err
}

// fill moves bytes of at most one frame from data to kept and returns the rest.
func (r *FrameReader) fill(data []byte, each func(Frame)) []byte {
	want := FrameHeaderSize
	if len(r.kept) >= FrameHeaderSize {
		want, r.err = frameSize(r.kept)
	}
	n := want - len(r.kept)
	if r.err != nil || n > len(data) {
		n = len(data)
	}
	r.kept = append(r.kept, data[:n]...)
	if len(r.kept) >= FrameHeaderSize && r.err == nil {
		if want, r.err = frameSize(r.kept); r.err == nil && len(r.kept) == want {
			each(parseFrame(r.kept))
			r.kept = r.kept[:0]
		}
	}
	return data[n:]
}

// frameSize returns the size in a frame's header, or 0 while the header is not complete.
func frameSize(data []byte) (int, error) {
	if len(data) < FrameHeaderSize {
		return 0, nil
	}
	size := binary.LittleEndian.Uint32(data[4:])
	if size < FrameHeaderSize || size > MaxFrame {
		return 0, &FrameError{size}
	}
	return int(size), nil
}

func parseFrame(data []byte) Frame {
	return Frame{
		Type: MessageType(binary.LittleEndian.Uint32(data[0:])),
		ID:   binary.LittleEndian.Uint64(data[8:]),
		Body: data[FrameHeaderSize:len(data):len(data)],
	}
}
