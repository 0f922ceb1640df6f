package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Errors that callers branch on.
var (
	// ErrNoAccess means that the cgroup file systems are absent or may not be
	// written by this process: not root and nothing delegated, or mounted
	// read-only.
	ErrNoAccess = errors.New("no cgroup access")
	// ErrPopulated means that processes live in a cgroup that should be empty.
	ErrPopulated = errors.New("processes are in the cgroup")
	// ErrFrozen means that a cgroup that was there before, or an ancestor, is
	// frozen, so that a process put into it would never run.
	ErrFrozen = errors.New("the cgroup is frozen")
)

// MissingError tells that a limit was asked for that this machine cannot
// enforce. It is also workload.ErrUnsupported.
type MissingError struct {
	Limit      string // as a user would say it, such as "memory limit"
	Controller string // the kernel's name, such as "memory"
	Reason     string // what is missing and, if known, what would provide it
}

func (e *MissingError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("%s: the %s controller is not available", e.Limit, e.Controller)
	}
	return fmt.Sprintf("%s: the %s controller is not available: %s", e.Limit, e.Controller, e.Reason)
}

// Is makes errors.Is(err, workload.ErrUnsupported) true.
func (e *MissingError) Is(target error) bool { return target == workload.ErrUnsupported }

// InvalidError tells that a value was asked for that has no meaning.
type InvalidError struct {
	Limit  string
	Reason string
}

func (e *InvalidError) Error() string { return e.Limit + ": " + e.Reason }

func invalid(limit, format string, args ...any) error {
	return &InvalidError{Limit: limit, Reason: fmt.Sprintf(format, args...)}
}

// noAccess adds ErrNoAccess to errors that mean the lack of a right.
func noAccess(err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("%w: %w", ErrNoAccess, err)
	}
	return err
}
