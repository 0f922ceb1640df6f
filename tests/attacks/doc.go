// Package attacks replays known attacks on container runtimes against this
// one: a file for each, with what the attack was, what prevents it here, and
// the facts about the kernel that this rests on. Attacks that were races are
// raced, for a bounded number of rounds.
//
// The tests need root. Their containers are made from a busybox layer and from
// this package's own test program, which plays the attacker inside: it runs as
// /bin/inside there, with the name of a function in inside_test.go.
package attacks
