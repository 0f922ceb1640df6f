package report

import (
	"slices"
	"testing"
)

func TestOrderIsFair(t *testing.T) {
	const n, rounds = 4, 40
	first := make([]int, n)
	follows := map[[2]int]int{}
	for r := range rounds {
		o := Order(n, r)
		if s := slices.Sorted(slices.Values(o)); !slices.Equal(s, []int{0, 1, 2, 3}) {
			t.Fatalf("Order(%d, %d) = %v: not everybody once", n, r, o)
		}
		first[o[0]]++
		for i := 1; i < n; i++ {
			follows[[2]int{o[i-1], o[i]}]++
		}
	}
	for i, got := range first {
		if got != rounds/n {
			t.Errorf("contender %d comes first %d times, want %d", i, got, rounds/n)
		}
	}
	for _, pair := range [][2]int{{0, 1}, {1, 0}, {2, 3}, {3, 2}} {
		if follows[pair] == 0 {
			t.Errorf("contender %d never follows %d", pair[1], pair[0])
		}
	}
}
