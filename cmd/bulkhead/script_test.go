package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/fake"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/vm/vmtest"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/supervisor"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel/kerneltest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/archive"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/nettest"
)

// boundaryVariable names the boundary that scripts run behind; without it, the
// fake one, which needs nothing of the machine. "tenant" is the boundary vm with
// all workloads of a script in one tenant's machine.
const (
	boundaryVariable = "BOUNDARY"
	inTenant         = "tenant"
	tenantName       = "acme"
)

// testBoundaries are the real ones and the fake one.
func testBoundaries() []boundary.Boundary { return append(boundaries(), &fake.Boundary{}) }

// testBoundary is the one that scripts run behind.
func testBoundary() string {
	if name := os.Getenv(boundaryVariable); name != "" {
		return name
	}
	return "fake"
}

func TestMain(m *testing.M) {
	commands := map[string]func(){
		"bulkhead": func() {
			os.Exit(newApp(testBoundaries()...).main(context.Background(), tenantArgs(os.Args[1:])))
		},
		"bulkhead-supervisor": func() { os.Exit(supervisor.Main(testBoundaries()...)) },
	}
	if commands[filepath.Base(os.Args[0])] == nil {
		// The tests themselves; their commands are started in the same namespace.
		nettest.Isolate(func() {
			if inMachines() {
				vmtest.Fetch()
			}
		})
	}
	testscript.Main(m, commands)
}

// tenantArgs says in the product's words what scripts say as "--boundary tenant".
func tenantArgs(args []string) []string {
	for n := range len(args) - 1 {
		if args[n] == "--boundary" && args[n+1] == inTenant {
			return slices.Concat(args[:n], []string{"--tenant", tenantName}, args[n+2:])
		}
	}
	return args
}

// TestScripts runs the sessions in testdata/script: those at the top need no
// workload, those in boundary run the same behind every boundary, those in real
// need one that isolates.
func TestScripts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this version of bulkhead needs root")
	}
	buildHelpers(t)
	for _, dir := range []string{".", "boundary", "real"} {
		t.Run(dir, func(t *testing.T) {
			prepare := setup
			switch {
			case inMachines():
				needRealBoundary(t)
				prepare = func(env *testscript.Env) error { return errors.Join(setup(env), setupMachines(env)) }
			case dir == "real", testBoundary() != "fake":
				needRealBoundary(t)
			}
			testscript.Run(t, testscript.Params{
				Dir:                 filepath.Join("testdata", "script", dir),
				Setup:               prepare,
				RequireUniqueNames:  true,
				RequireExplicitExec: true,
				UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
				Condition:           condition,
				Deadline:            time.Now().Add(15 * time.Minute),
				Cmds:                map[string]func(*testscript.TestScript, bool, []string){"status": cmdStatus, "waitlog": cmdWaitLog, "phases": cmdPhases, "registry": cmdRegistry},
			})
		})
	}
}

// needRealBoundary skips where scripts run behind a boundary that isolates
// nothing, or where the machine cannot do what it needs.
func needRealBoundary(t *testing.T) {
	t.Helper()
	name := testBoundary()
	if name == "fake" {
		t.Skipf("these sessions need a boundary that isolates: set %s=container", boundaryVariable)
	}
	if inMachines() {
		buildMachines(t)
		return
	}
	if name == "gvisor" {
		linkRunsc(t) // found beside the programs, not beside this test
		buildInit(t)
		return
	}
	for _, b := range testBoundaries() {
		if b.Name() == name {
			if err := b.Check(t.Context()); err != nil {
				t.Skipf("boundary %s: %v", name, err)
			}
			buildInit(t)
			return
		}
	}
	t.Fatalf("%s=%s: no such boundary", boundaryVariable, name)
}

// linkRunsc puts the runsc in PATH beside the others, as make does: supervisors
// have a PATH of their own.
func linkRunsc(t *testing.T) {
	t.Helper()
	runsc, err := exec.LookPath("runsc")
	if err != nil {
		t.Skip(err)
	}
	bin, err := exec.LookPath("bulkhead")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(runsc, filepath.Join(filepath.Dir(bin), "runsc")); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
}

// buildInit puts the program of --init beside the others.
func buildInit(t *testing.T) { build(t, "../bulkhead-init") }

// buildHelpers puts the programs of networks, the prober, and that of sessions about them,
// beside the others.
func buildHelpers(t *testing.T) {
	build(t, "../bulkhead-network", "../bulkhead-dns", "../bulkhead-probe", "./testdata/talk")
}

// build puts programs beside those that the test binary is. The test guest has no
// Go, but has the programs.
func build(t *testing.T, packages ...string) {
	t.Helper()
	bin, err := exec.LookPath("bulkhead")
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("BULKHEAD_GUEST") != "" {
		for _, p := range packages {
			name := filepath.Base(p)
			if err := copyProgram(filepath.Join(filepath.Dir(bin), name), name); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	cmd := exec.Command("go", append([]string{"build", "-o", filepath.Dir(bin) + "/"}, packages...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %q: %v: %s", packages, err, out)
	}
}

// copyProgram copies a program of the search path.
func copyProgram(to, name string) error {
	from, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	if from == to {
		return nil // by an earlier call
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// inMachines reports whether scripts run in virtual machines.
func inMachines() bool { return testBoundary() == "vm" || testBoundary() == inTenant }

// buildMachines puts the programs that machines need beside the others.
func buildMachines(t *testing.T) {
	t.Helper()
	helpers := filepath.Dir(vmtest.Machine(t).FileServer)
	bin, err := exec.LookPath("bulkhead")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bulkhead-agent", "bulkhead-fileserver", "bulkhead-init"} {
		b, err := os.ReadFile(filepath.Join(helpers, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(filepath.Dir(bin), name), b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// setupMachines gives a script's state the kernels and templates that tests keep, and
// its tenant. Emulation has been announced, so that output is what it is elsewhere.
func setupMachines(env *testscript.Env) error {
	root := env.Getenv(rootVariable)
	cache, err := vmtest.Cache()
	if err != nil {
		return err
	}
	if err := os.Symlink(filepath.Join(cache, "kernels"), filepath.Join(root, "kernels")); err != nil {
		return err
	}
	// Templates, too: making one takes as long as a boot.
	shared := filepath.Join(cache, templatesDir)
	if err := errors.Join(os.MkdirAll(shared, 0o700), os.Symlink(shared, filepath.Join(root, templatesDir))); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, toldEmulation), nil, 0o600); err != nil {
		return err
	}
	if testBoundary() != inTenant {
		return nil
	}
	out, err := exec.Command("bulkhead", "--root", root, "tenant", "create", tenantName).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make the tenant: %w: %s", err, out)
	}
	return nil
}

// condition knows the name of the boundary: [fake], [container], [vm], and
// [tenant] where [vm] holds and the workloads share a machine.
func condition(cond string) (bool, error) {
	switch cond {
	case "vm":
		return inMachines(), nil
	case inTenant:
		return testBoundary() == inTenant, nil
	}
	for _, b := range testBoundaries() {
		if b.Name() == cond {
			return cond == testBoundary(), nil
		}
	}
	return false, fmt.Errorf("unknown condition %q", cond)
}

// setup gives a script a state directory, the tar of an image and the files of a
// kernel (which nothing could boot), and removes
// what it leaves running.
func setup(env *testscript.Env) error {
	// Socket paths end at 107 bytes (unix(7)), so state lies in a short directory.
	root, err := os.MkdirTemp("", "bh")
	if err != nil {
		return err
	}
	env.Setenv(rootVariable, root)
	env.Setenv(boundaryVariable, testBoundary())
	env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
	env.Setenv("TZ", "UTC")
	env.Defer(func() { cleanUp(env, root) })
	rootfs, err := rootFS()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(env.WorkDir, "rootfs.tar"), rootfs, 0o600); err != nil {
		return err
	}
	const release = "6.1.0-99-test"
	for name, content := range map[string][]byte{
		"vmlinux":         kerneltest.Image(release),
		"modules/fuse.ko": kerneltest.Module(release, "depends="),
		"vmlinux-cut":     kerneltest.Image(release)[:200],
	} {
		file := filepath.Join(env.WorkDir, "kernel", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, content, 0o600)); err != nil {
			return err
		}
	}
	s, err := image.Open(root)
	if err != nil {
		return err
	}
	_, err = archive.Import(context.Background(), s, bytes.NewReader(rootfs), archive.ImportOptions{
		Name: "test", Changes: []string{`CMD ["/bin/program","echo","hello"]`, "LABEL from=image"},
	})
	return err
}

// cleanUp removes every workload of a script and its state.
func cleanUp(env *testscript.Env, root string) {
	bin, err := exec.LookPath("bulkhead")
	removeAll := func(list, remove []string) {
		ids, listErr := exec.Command(bin, append([]string{"--root", root}, list...)...).Output()
		err = errors.Join(err, listErr)
		for _, id := range strings.Fields(string(ids)) {
			if out, rmErr := exec.Command(bin, slices.Concat([]string{"--root", root}, remove, []string{id})...).CombinedOutput(); rmErr != nil {
				err = errors.Join(err, fmt.Errorf("remove %s: %w: %s", id, rmErr, out))
			}
		}
	}
	if err == nil {
		removeAll([]string{"ps", "-aq", "--no-trunc"}, []string{"rm", "-f"})
		// With templates of the session's own, machines may wait.
		if fi, statErr := os.Lstat(filepath.Join(root, templatesDir)); statErr == nil && fi.IsDir() {
			removeAll([]string{"template", "ls", "-q"}, []string{"template", "rm", "-f"})
		}
	}
	if testBoundary() == inTenant {
		if out, rmErr := exec.Command(bin, "--root", root, "tenant", "rm", "-f", tenantName).CombinedOutput(); rmErr != nil {
			err = errors.Join(err, fmt.Errorf("remove the tenant: %w: %s", rmErr, out))
		}
	}
	if rmErr := removeNetworks(root); rmErr != nil {
		err = errors.Join(err, rmErr)
	}
	// The engine keeps these two for the next workload; a test leaves nothing.
	for _, name := range []string{"bulkhead/supervisors", "bulkhead"} {
		for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
			dirs, _ := filepath.Glob(filepath.Join(mount, name))
			for _, d := range dirs {
				os.Remove(d) // fails where others use it
			}
		}
	}
	if err := errors.Join(err, os.RemoveAll(root)); err != nil {
		env.T().Log("clean up:", err)
		env.T().FailNow()
	}
}

// program speaks, in a real workload, the part of the fake boundary's language
// that sessions use.
const program = `#!/bin/sh
cmd=$1
shift
case $cmd in
exit) exit "$1" ;;
echo) echo "$@" ;;
both) echo to stdout; echo to stderr >&2 ;;
cat) exec cat ;;
env) exec env ;;
pwd) exec pwd ;;
hostname) exec hostname ;;
set) echo >"/tmp/flag-$1" ;;
unset) rm -f "/tmp/flag-$1" ;;
isset) test -e "/tmp/flag-$1" || { echo "no $1" >&2; exit 1; } ;;
pause) while :; do sleep 1000 & wait; done ;;
wait-signal)
	for n in 1 2 3 10 12 15; do trap "echo signal $n; test $n = $(kill -l $1 2>/dev/null || echo $1) && exit 7" $n; done
	echo ready
	while :; do sleep 1000 & wait; done ;;
*) exit 2 ;;
esac
`

// rootFS is the tar of an image's root: busybox where this machine has it, and
// program.
func rootFS() ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err == nil {
			_, _ = w.Write(content) // an error comes again with Close
		}
	}
	for _, dir := range []string{"bin/", "etc/", "tmp/", "root/", "srv/"} {
		mode := int64(0o755)
		if dir == "tmp/" {
			mode = 0o1777
		}
		add(tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: mode}, nil)
	}
	add(tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/srv:/bin/sh\n"))
	add(tar.Header{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:\napp:x:1000:\n"))
	add(tar.Header{Name: "bin/program", Typeflag: tar.TypeReg, Mode: 0o755}, []byte(program))
	if busybox, err := os.ReadFile("/bin/busybox"); err == nil {
		add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, busybox)
		for _, applet := range strings.Fields("sh cat env pwd hostname sleep kill id ls mount ps dd touch test true false stty head wc tail sysctl ulimit df grep cut yes nproc rm") {
			add(tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil)
		}
	} else if testBoundary() != "fake" {
		return nil, fmt.Errorf("sessions behind a real boundary need the package busybox-static: %w", err)
	}
	if talk, err := exec.LookPath("talk"); err == nil && testBoundary() != "fake" {
		b, err := os.ReadFile(talk)
		if err != nil {
			return nil, err
		}
		add(tar.Header{Name: "bin/talk", Typeflag: tar.TypeReg, Mode: 0o755}, b)
	}
	err := w.Close()
	return b.Bytes(), err
}

// removeNetworks removes all networks of a script's state.
func removeNetworks(root string) error {
	out, err := exec.Command("bulkhead", "--root", root, "network", "prune", "-f").CombinedOutput()
	if err != nil {
		return fmt.Errorf("remove the networks: %w: %s", err, out)
	}
	return nil
}

// cmdStatus is the script command `status CODE COMMAND...`: the command must
// end with that exit code.
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// cmdPhases is the script command `phases NAME[:BY]...`: standard error is a trace
// as JSON, every phase of it within the one that it is a part of, and those named
// begin one after the other.
func cmdPhases(ts *testscript.TestScript, neg bool, args []string) {
	type phase struct {
		Name, By        string
		Parent          int
		BeginMS, TookMS float64
	}
	var got struct{ Phases []phase }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stderr")), &got))
	const rounded = 0.002 // ms
	for i, p := range got.Phases {
		if p.BeginMS < 0 || p.TookMS < 0 || p.Parent < 0 || p.Parent > i || p.Parent == 0 && i > 0 {
			ts.Fatalf("phase %d, %+v, makes no sense", i, p)
		}
		if p.Parent > 0 {
			if in := got.Phases[p.Parent-1]; p.BeginMS < in.BeginMS || p.BeginMS+p.TookMS > in.BeginMS+in.TookMS+rounded {
				ts.Fatalf("%+v reaches out of %+v", p, in)
			}
		}
	}
	before := -1.0
	for _, want := range args {
		name, by, _ := strings.Cut(want, ":")
		n := slices.IndexFunc(got.Phases, func(p phase) bool {
			return p.Name == name && (by == "" || p.By == by) && p.BeginMS >= before
		})
		if n >= 0 == neg {
			ts.Fatalf("phase %q behind %v ms: found %v", want, before, !neg)
		}
		if n >= 0 {
			before = got.Phases[n].BeginMS
		}
	}
}

// cmdRegistry is "registry": it starts an empty one on loopback, whose address is
// in $REGISTRY until the session ends.
func cmdRegistry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: registry")
	}
	srv := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	ts.Defer(srv.Close)
	ts.Setenv("REGISTRY", srv.Listener.Addr().String())
}

// cmdWaitLog is "waitlog NAME TEXT": it follows a workload's log until TEXT is
// in it.
func cmdWaitLog(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: waitlog NAME TEXT")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bulkhead", "logs", "--follow", args[0])
	cmd.Env = append(os.Environ(), "BULKHEAD_ROOT="+ts.Getenv("BULKHEAD_ROOT"))
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	found := false
	for s := bufio.NewScanner(out); !found && s.Scan(); {
		found = strings.Contains(s.Text(), args[1])
	}
	cancel()
	cmd.Wait()
	if !found {
		ts.Fatalf("%q did not come in the log of %s", args[1], args[0])
	}
}
