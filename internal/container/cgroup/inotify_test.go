package cgroup

import (
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/inotifytest"
)

// TestWithoutInotify has tests of what waits for reports of the kernel run once
// more, where others have used up all inotify instances.
func TestWithoutInotify(t *testing.T) {
	native(t)
	inotifytest.Again(t, "^(TestWaitEmpty|TestKillForkBomb|TestFreeze|TestDestroyNested|TestWaitEndsWithTheCgroup)$", "TestKillForkBomb")
}
