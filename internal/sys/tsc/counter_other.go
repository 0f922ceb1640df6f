//go:build !amd64

package tsc

const implemented = false

func counter() uint64 { return 0 }
