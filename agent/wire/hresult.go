package wire

import (
	"errors"
	"strconv"
)

// HResult is the number that tells the host the kind of a failure.
type HResult uint32

// The failures of SPEC section 5.
const (
	NotImpl                    HResult = 0x80004001
	Fail                       HResult = 0x80004005
	FileNotFound               HResult = 0x80070002
	PathNotFound               HResult = 0x80070003
	AccessDenied               HResult = 0x80070005
	InvalidArg                 HResult = 0x80070057
	LoaderNotFound             HResult = 0x8007007E
	BadFormat                  HResult = 0x800700C1
	NotFound                   HResult = 0x80070490
	Timeout                    HResult = 0xC0370109
	UnsupportedProtocolVersion HResult = 0xC037010C
	InvalidJSON                HResult = 0xC037010D
	SystemNotFound             HResult = 0xC037010E
	SystemAlreadyExists        HResult = 0xC037010F
	InvalidState               HResult = 0x80370105
)

// Error is a failure that carries its HRESULT. Cause may be nil.
type Error struct {
	Code  HResult
	Text  string
	Cause error
}

func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Text
	}
	return e.Text + ": " + e.Cause.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// CodeOf returns the HRESULT found first in err's chain, or Fail.
func CodeOf(err error) HResult {
	var found *Error
	if errors.As(err, &found) {
		return found.Code
	}
	return Fail
}

// Hex returns n as 0x and eight digits.
func Hex(n uint32) string {
	digits := strconv.FormatUint(uint64(n), 16)
	return "0x00000000"[:10-len(digits)] + digits
}
