package network

import (
	"errors"
	"fmt"
)

// Errors that callers branch on. They are wrapped with what was attempted.
var (
	ErrNotFound  = errors.New("no such network")
	ErrAmbiguous = errors.New("more than one network matches")
	ErrExists    = errors.New("a network of this name exists")
	ErrInvalid   = errors.New("not possible")
	ErrOverlap   = errors.New("the subnet is in use")
	ErrInUse     = errors.New("the network is in use")
	ErrDefault   = errors.New("the default network cannot be removed")
	// ErrExhausted tells that no address is left, ErrAddressTaken that the one that
	// was asked for has an owner.
	ErrExhausted    = errors.New("no address is left")
	ErrAddressTaken = errors.New("the address is in use")
	ErrPortTaken    = errors.New("port is already in use")
	// ErrDamaged tells that nobody knows what the network was.
	ErrDamaged = errors.New("the network's record is damaged")
)

// invalid is an ErrInvalid that says what is wrong and no more.
type invalid string

func (e invalid) Error() string      { return string(e) }
func (invalid) Is(target error) bool { return target == ErrInvalid }

// Invalidf is an error that is ErrInvalid, in other words.
func Invalidf(format string, args ...any) error { return invalid(fmt.Sprintf(format, args...)) }
