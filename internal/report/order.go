package report

import "slices"

// Order is the sequence in which n contenders are measured in a round: rotated by
// one every two rounds, so that each comes first as often as last, and reversed in
// the second of the two, so that none always follows the same neighbour.
func Order(n, round int) []int {
	o := make([]int, n)
	for i := range o {
		o[i] = (i + round/2) % n
	}
	if round%2 == 1 {
		slices.Reverse(o)
	}
	return o
}
