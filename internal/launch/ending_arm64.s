#include "textflag.h"

// A signal handler in a child: exit_group(128 + signal). It needs no stack and
// nothing of the Go runtime. If a seccomp filter lets exit_group fail, the
// undefined instruction ends the process: the kernel forces that signal.
TEXT endingHandler<>(SB), NOSPLIT|NOFRAME, $0-0
	ADD $128, R0
	MOVD $94, R8
	SVC
	UNDEF

DATA ·endingHandlerAddr+0(SB)/8, $endingHandler<>(SB)
GLOBL ·endingHandlerAddr(SB), NOPTR|RODATA, $8
