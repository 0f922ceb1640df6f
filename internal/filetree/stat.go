package filetree

import (
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Stat describes what Open found.
func Stat(fd int, name string) (workload.PathStat, error) {
	st, _, err := at.StatMount(fd)
	if err != nil {
		return workload.PathStat{}, err
	}
	p := workload.PathStat{Name: Base(name), Size: st.Size, Mode: st.Mode, ModTime: time.Unix(st.Mtim.Unix())}
	if at.IsLink(st) {
		p.LinkTarget, err = at.ReadlinkOf(fd)
	}
	return p, err
}
