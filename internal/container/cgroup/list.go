package cgroup

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxListItem bounds CPU and memory node numbers; the largest NR_CPUS that a
// kernel can be built with is 8192.
const maxListItem = 8191

// parseList reads the list format of cpuset(7), such as "0-3,7", into sorted
// numbers without duplicates.
func parseList(s string) ([]int, error) {
	seen := make(map[int]bool)
	for item := range strings.SplitSeq(strings.TrimSpace(s), ",") {
		lo, hi, ranged := strings.Cut(strings.TrimSpace(item), "-")
		first, err := parseItem(lo)
		if err != nil {
			return nil, fmt.Errorf("%q is not a list such as 0-3,7", s)
		}
		last := first
		if ranged {
			if last, err = parseItem(hi); err != nil || last < first {
				return nil, fmt.Errorf("%q is not a list such as 0-3,7", s)
			}
		}
		for n := first; n <= last; n++ {
			seen[n] = true
		}
	}
	list := make([]int, 0, len(seen))
	for n := range seen {
		list = append(list, n)
	}
	slices.Sort(list)
	return list, nil
}

func parseItem(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, err
	}
	if n > maxListItem {
		return 0, fmt.Errorf("%d is more than %d", n, maxListItem)
	}
	return int(n), nil
}

// formatList is the inverse of parseList, in the shortest form.
func formatList(list []int) string {
	var b strings.Builder
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(list[i]))
		if j > i {
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(list[j]))
		}
		i = j + 1
	}
	return b.String()
}

// without returns those numbers of list that are not in available.
func without(list, available []int) []int {
	var missing []int
	for _, n := range list {
		if _, ok := slices.BinarySearch(available, n); !ok {
			missing = append(missing, n)
		}
	}
	return missing
}
