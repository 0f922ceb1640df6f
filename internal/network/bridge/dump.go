package bridge

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// dumpTries is how often a list is asked for that changes meanwhile.
const dumpTries = 20

// dump asks the kernel for a list until nothing changes while it answers
// (NLM_F_DUMP_INTR). Where something always does, whole is false, and the list of the
// last time may lack what came or went meanwhile.
func dump[T any](list func() ([]T, error)) (all []T, whole bool, err error) {
	for range dumpTries {
		all, err = list()
		if err == nil {
			return all, true, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, false, err
		}
	}
	return all, false, nil
}
