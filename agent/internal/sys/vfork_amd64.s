#include "textflag.h"

// func vfork(clone *cloneArgs, size uintptr, steps *step, count uintptr, fault *fault) (pid, errno uintptr)
//
// The child shares our memory and, until it has executed its program, our stack: it must not touch the stack, and it
// does not. We are suspended meanwhile, which is what makes fault a safe way to tell what went wrong.
TEXT ·vfork(SB), NOSPLIT|NOFRAME, $0-56
	MOVQ clone+0(FP), DI
	MOVQ size+8(FP), SI
	MOVQ steps+16(FP), R12
	MOVQ count+24(FP), R13
	MOVQ fault+32(FP), BX
	MOVQ $435, AX // clone3
	SYSCALL
	CMPQ AX, $-4095
	JCC  refused
	TESTQ AX, AX
	JZ   child
	MOVQ AX, pid+40(FP)
	MOVQ $0, errno+48(FP)
	RET

refused:
	NEGQ AX
	MOVQ $0, pid+40(FP)
	MOVQ AX, errno+48(FP)
	RET

child:
	MOVQ 0(R12), AX
	MOVQ 8(R12), DI
	MOVQ 16(R12), SI
	MOVQ 24(R12), DX
	XORQ R10, R10
	SYSCALL
	CMPQ AX, $-4095
	JCC  failed
	ADDQ $32, R12
	DECQ R13
	JNZ  child

failed:
	NEGQ AX
	MOVQ AX, 0(BX)
	MOVQ R13, 8(BX)
	MOVQ $127, DI
	MOVQ $231, AX // exit_group
	SYSCALL
	INT  $3
