package network

import "errors"

// Errors that callers branch on. They are wrapped with what was attempted.
var (
	ErrNotFound  = errors.New("no such network")
	ErrAmbiguous = errors.New("more than one network matches")
	ErrExists    = errors.New("a network of this name exists")
	ErrInvalid   = errors.New("this network cannot be")
	ErrOverlap   = errors.New("the subnet is in use")
	ErrInUse     = errors.New("the network is in use")
	ErrDefault   = errors.New("the default network cannot be removed")
	// ErrExhausted tells that no address is left, ErrAddressTaken that the one that
	// was asked for has an owner.
	ErrExhausted    = errors.New("no address is left")
	ErrAddressTaken = errors.New("the address is in use")
	ErrPortTaken    = errors.New("port is already in use")
)
