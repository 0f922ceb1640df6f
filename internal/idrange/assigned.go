package idrange

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// maxFile bounds how much of a file below /etc is read, in bytes.
const maxFile = 16 << 20

// lowest is the first ID that may be handed out: below lie the IDs of the host's
// own users and the overflow ID 65534.
const lowest = Size

// subID is one line of /etc/subuid or /etc/subgid.
type subID struct {
	user string
	ids  Range
}

// parseSubIDs reads the format of subuid(5): user:first:count. As in the shadow
// tools, lines that do not follow it are skipped; so are empty ranges and such as
// do not fit into 32 bits.
func parseSubIDs(text string) []subID {
	var out []subID
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 || f[0] == "" || f[0][0] == '#' {
			continue
		}
		first, err1 := strconv.ParseUint(f[1], 10, 32)
		count, err2 := strconv.ParseUint(f[2], 10, 32)
		// 2^32-1 is "no ID" in the kernel's interface.
		if err1 != nil || err2 != nil || count == 0 || first+count > 1<<32-1 {
			continue
		}
		out = append(out, subID{f[0], Range{uint32(first), uint32(count)}})
	}
	return out
}

// parseIDs returns the third field of each line: the IDs in passwd(5) and
// group(5).
func parseIDs(text string) []uint32 {
	var out []uint32
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 4)
		if len(f) < 3 {
			continue
		}
		if id, err := strconv.ParseUint(f[2], 10, 32); err == nil {
			out = append(out, uint32(id))
		}
	}
	return out
}

// assigned returns the slots that the files in etc leave to workloads.
func assigned(etc string) ([]Range, error) {
	var text [4]string
	for i, name := range []string{"subuid", "subgid", "passwd", "group"} {
		var err error
		if text[i], err = read(filepath.Join(etc, name)); err != nil {
			return nil, err
		}
	}
	return choose(parseSubIDs(text[0]), parseSubIDs(text[1]),
		append(parseIDs(text[2]), parseIDs(text[3])...))
}

func read(path string) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read assigned IDs: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", fmt.Errorf("read assigned IDs: %w", err)
	}
	if len(b) > maxFile {
		return "", fmt.Errorf("read assigned IDs: %s is larger than %d bytes", path, maxFile)
	}
	return string(b), nil
}

// choose applies the rules in the package's comment.
func choose(uids, gids []subID, taken []uint32) ([]Range, error) {
	var space []Range
	owner := ""
	for _, name := range []string{"bulkhead", "containers"} {
		u, g := of(name, uids), of(name, gids)
		if len(u) == 0 && len(g) == 0 {
			continue
		}
		owner = name
		space = intersect(u, g)
		break
	}
	if owner == "" {
		space = []Range{Default}
	}
	var others []Range
	for _, s := range append(append([]subID{}, uids...), gids...) {
		if s.user != owner {
			others = append(others, s.ids)
		}
	}
	for _, id := range taken {
		others = append(others, Range{id, 1})
	}
	slots := cut(space, others)
	if len(slots) == 0 {
		if owner == "" {
			return nil, fmt.Errorf("%w: others use all of the default range %d:%d", ErrExhausted, Default.Base, Default.Count)
		}
		return nil, fmt.Errorf("%w: /etc/subuid and /etc/subgid give %q no %d IDs in a row, the same in both files, above %d and used by nobody else",
			ErrExhausted, owner, Size, lowest)
	}
	return slots, nil
}

func of(user string, ids []subID) []Range {
	var out []Range
	for _, s := range ids {
		if s.user == user {
			out = append(out, s.ids)
		}
	}
	return out
}

// intersect returns the IDs that are in both a and b, as a workload uses the
// same numbers for users and groups.
func intersect(a, b []Range) []Range {
	var out []Range
	for _, x := range a {
		for _, y := range b {
			lo, hi := max(uint64(x.Base), uint64(y.Base)), min(x.end(), y.end())
			if lo < hi {
				out = append(out, Range{uint32(lo), uint32(hi - lo)})
			}
		}
	}
	return out
}

// maxSlots bounds the memory of a pool, whatever /etc/subuid says: all of 32 bits.
const maxSlots = 1 << 16

// cut divides space into slots and leaves out those that touch others or each
// other. It runs for every workload, so its time is the sum of the lengths of its
// arguments, not the product.
func cut(space, others []Range) []Range {
	var slots []Range
	for i, s := range space {
		lo := max(uint64(s.Base), lowest)
		if lo+Size > s.end() {
			continue
		}
		blocked := make([]bool, min((s.end()-lo)/Size, maxSlots))
		block := func(o Range) {
			if o.end() <= lo {
				return
			}
			first := max(uint64(o.Base), lo) - lo
			for n := first / Size; n < uint64(len(blocked)) && lo+n*Size < o.end(); n++ {
				blocked[n] = true
			}
		}
		for _, o := range others {
			block(o)
		}
		for _, o := range space[:i] {
			block(o)
		}
		slots = slices.Grow(slots, min(len(blocked), maxSlots-len(slots)))
		for n := range blocked {
			if !blocked[n] && len(slots) < maxSlots {
				slots = append(slots, Range{uint32(lo + uint64(n)*Size), Size})
			}
		}
	}
	return slots
}
