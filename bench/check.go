package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// A contender that does less than it is asked is fast. So before anything is
// timed, each must show that the bundle's hardening is in force, and that the
// exit codes it reports are the program's.

// inForce runs inside and names the first thing that is not as the bundle asks.
const inForce = `
has() { grep -q "$1" "$2" || { echo "$3" >&2; exit 99; }; }
has '^NoNewPrivs:[[:space:]]*1$' /proc/self/status 'no_new_privs is off'
has '^Seccomp:[[:space:]]*2$' /proc/self/status 'no seccomp filter'
has '^CapBnd:[[:space:]]*00000000800405fb$' /proc/self/status 'other capabilities'
has '^ *0 *1048576 *65536$' /proc/self/uid_map 'other IDs'
has ' / [^ ]* *ro[, ]' /proc/self/mountinfo 'the root is writable'
[ "$(head -c 1 /proc/kcore | wc -c)" = 0 ] || { echo '/proc/kcore is not masked' >&2; exit 99; }
echo x >/proc/sys/kernel/domainname && { echo '/proc/sys is writable' >&2; exit 99; }
[ "$(ls /proc | grep -c '^[0-9]')" -lt 8 ] || { echo 'foreign processes' >&2; exit 99; }
[ "$(ls /sys/class/net)" = lo ] || { echo 'foreign network devices' >&2; exit 99; }
exit 7`

// The bundle's limits are 256 MiB and 128 processes.
const (
	tooMuchMemory = "dd if=/dev/zero of=/dev/null bs=300M count=1" // killed: 137
	tooManyForks  = "i=0; while [ $i -lt 200 ]; do sleep 3 & i=$((i+1)); done"
)

// exits runs a command that must end with a certain code.
func (run runner) exits(ctx context.Context, code int, args ...string) error {
	_, err := run(ctx, args...)
	var e *exec.ExitError
	switch {
	case err == nil && code == 0:
		return nil
	case errors.As(err, &e) && e.ExitCode() == code:
		return nil
	case err == nil:
		return fmt.Errorf("%s: exit code 0, want %d", strings.Join(args, " "), code)
	}
	return fmt.Errorf("want exit code %d: %w", code, err)
}

// check runs the bundles that show whether the hardening is in force.
func (r ociRuntime) check(ctx context.Context, rootfs string) error {
	for _, c := range []struct {
		name, script string
		code         int
	}{
		{"hardening", inForce, 7},
		{"memory", tooMuchMemory, 137},
		{"pids", tooManyForks, 2},
	} {
		if err := makeBundle(r.bundle(c.name), rootfs, "bulkhead-bench-"+r.key, "/bin/sh", "-c", c.script); err != nil {
			return err
		}
		id := "check-" + c.name + "-" + r.key
		if err := r.do.exits(ctx, c.code, r.cmd("run", "--bundle", r.bundle(c.name), id)...); err != nil {
			_, e := r.do(ctx, r.cmd("delete", "--force", id)...)
			return fmt.Errorf("the %s of the bundle: %w", c.name, errors.Join(err, e))
		}
	}
	return nil
}
