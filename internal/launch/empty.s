// This file is empty. It lets the compiler accept functions without a body,
// which walk_unsafe.go links to the runtime's.
