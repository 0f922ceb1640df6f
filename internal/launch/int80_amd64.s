#include "textflag.h"

// func int80(nr, a, b, c uintptr) uintptr
//
// A system call as 32-bit programs make it. The kernel clears R8 to R11.
TEXT ·int80(SB), NOSPLIT, $0-40
	MOVQ nr+0(FP), AX
	MOVQ a+8(FP), BX
	MOVQ b+16(FP), CX
	MOVQ c+24(FP), DX
	XORQ SI, SI
	XORQ DI, DI
	INT  $0x80
	MOVQ AX, ret+32(FP)
	RET
