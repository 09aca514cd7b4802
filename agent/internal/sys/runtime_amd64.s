#include "textflag.h"

// func briefHandler() (handler, restorer uintptr)
TEXT ·briefHandler(SB), NOSPLIT|NOFRAME, $0-16
	LEAQ brief<>(SB), AX
	MOVQ AX, handler+0(FP)
	LEAQ restore<>(SB), AX
	MOVQ AX, restorer+8(FP)
	RET

TEXT brief<>(SB), NOSPLIT|NOFRAME, $0-0
	RET

TEXT restore<>(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ $15, AX // rt_sigreturn
	SYSCALL
	INT  $3
