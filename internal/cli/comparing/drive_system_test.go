package comparing

import (
	"errors"
	"testing"
	"time"
)

// TestSystemFirstOutput: a program in a system has put something out when it has, as in
// every other way, and not at its end.
func TestSystemFirstOutput(t *testing.T) {
	newEngine(t, "bulkhead")
	s := &system{oursDriver: oursDriver{tool: tool{program: []string{"bulkhead"}, id: "0123"}}}
	// A sleep takes at least its time.
	first, end, err := s.start(t.Context(), []string{"sh", "-c", "echo hello; sleep 1"})
	if err != nil || first <= 0 || end < first+500*time.Millisecond {
		t.Errorf("output after %v, end after %v: %v", first, end, err)
	}
	first, end, err = s.start(t.Context(), []string{"true"})
	if !errors.Is(err, errSilent) || end < first {
		t.Errorf("of a silent program: output after %v, end after %v: %v", first, end, err)
	}
}
