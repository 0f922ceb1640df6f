package comparing

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// few is a driver whose workloads are processes of this host, of which there is room
// for some.
type few struct {
	driver
	most    int
	running []*exec.Cmd
	stuck   error // why the last cannot be removed
}

func (f *few) detach(_ context.Context, name string, _ []string, _ bool) (string, error) {
	if len(f.running) == f.most {
		return "", errors.New("no more of them")
	}
	cmd := exec.Command("sleep", "60")
	cmd.Args[0] = name // which finds it
	f.running = append(f.running, cmd)
	return name, cmd.Start()
}

func (f *few) remove(context.Context, ...string) error {
	for _, cmd := range f.running {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
	return f.stuck
}

// TestRoomAtALimit: where the next workload did not start there is room for those that
// run, however much memory is left; and what fails afterwards does not hide why.
func TestRoomAtALimit(t *testing.T) {
	settle = 0
	defer func() { settle = 2 * time.Second }()
	c := &comparison{Options: quiet(t)}
	c.Density = 3
	for _, tt := range []struct {
		driver    *few
		room      float64 // 0 for what is left
		note      string
		estimated bool
	}{
		{&few{most: 2}, 2, "the next did not start: no more of them", false},
		{&few{most: 3}, 0, "by the memory of each", true},
		{&few{most: 2, stuck: errors.New("stuck")}, 2, "the next did not start: no more of them; failed at times: stuck", false},
	} {
		w := &way{driver: tt.driver}
		c.ways = []*way{w}
		c.density(t.Context())
		m := w.measure("density.room")
		if len(m.Samples) != 1 || m.Estimated != tt.estimated || !strings.HasPrefix(m.Note, tt.note) || tt.room > 0 && m.Samples[0] != tt.room {
			t.Errorf("up to %d: %+v", tt.driver.most, m)
		}
		if m := w.measure("density.idle"); len(m.Samples) != 1 || m.Samples[0] != float64(len(tt.driver.running)) {
			t.Errorf("up to %d: %+v", tt.driver.most, m)
		}
	}
}
