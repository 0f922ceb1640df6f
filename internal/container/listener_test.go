package container

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
)

// TestListenerIsThereInTime: without no_new_privs the filter is in force before the
// process has become its user, and whoever answers for it has its listener by then.
func TestListenerIsThereInTime(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second) // only where nobody answers
	defer cancel()
	root := busybox(t)
	none := uint(0)
	var mu sync.Mutex
	seen := map[string]int{}
	report := func(d seccomp.Denied) {
		mu.Lock()
		defer mu.Unlock()
		seen[d.Name]++
	}
	filter := func(action specs.LinuxSeccompAction, errno *uint) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"setgroups"}, Action: action, ErrnoRet: errno}}}
	}
	config := func(f *specs.LinuxSeccomp) Config {
		cfg := Config{ID: "listener", Dir: t.TempDir(), Spec: testSpec("sleep", "60"), Layers: layersOf(t, root, testBase)}
		cfg.Spec.Process.NoNewPrivileges, cfg.Spec.Linux.Seccomp = false, f
		return cfg
	}

	// Denied, with the answer that it has been done.
	cfg := config(filter(specs.ActErrno, &none))
	cfg.ReportDenied = report
	c, err := Create(ctx, cfg)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	defer c.Delete(context.Background())
	if err := c.Start(ctx); err != nil {
		t.Fatalf("start: %v", err)
	}
	p, err := c.Exec(ctx, ExecConfig{Process: &specs.Process{Args: []string{"true"}, Cwd: "/", Env: cfg.Spec.Process.Env, Capabilities: cfg.Spec.Process.Capabilities},
		Seccomp: cfg.Spec.Linux.Seccomp, ReportDenied: report})
	if err != nil {
		t.Fatalf("exec: %v", err)
	}
	defer p.Close()
	if exit, err := p.Wait(ctx); err != nil || exit.Code != 0 {
		t.Errorf("exec: got %+v, %v", exit, err)
	}
	mu.Lock()
	defer mu.Unlock()
	if seen["setgroups"] != 2 {
		t.Errorf("reported: %v, want setgroups twice", seen)
	}

	// Asked of a listener of somebody else's, who says no.
	cfg = config(filter(specs.ActNotify, nil))
	original, err := seccomp.Compile(cfg.Spec.Linux.Seccomp)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan struct{})
	cfg.Listener = func(f *os.File, _ int) error {
		go func() {
			defer close(answered)
			defer f.Close()
			seccomp.NewReporter(f, original, 1, func(seccomp.Denied) {}).Run(ctx)
		}()
		return nil
	}
	if c, err := Create(ctx, cfg); !errors.Is(err, unix.EPERM) {
		t.Errorf("got %v, want what the listener said", err)
		if err == nil {
			c.Delete(context.Background())
		}
	}
	<-answered
}
