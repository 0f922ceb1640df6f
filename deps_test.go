// Package bulkhead_test holds what is true of the module as a whole.
package bulkhead_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/seed-f5e3b97b/bulkhead"

// layers orders the packages of the module: a package imports only packages of
// a lower layer, and those beneath its own entry. The longest entry that is a
// prefix of a package's path decides. ARCHITECTURE.md draws the same picture.
var layers = map[string]int{
	"cmd":   100,
	"tests": 100,
	"bench": 100,

	// Adapters translate a command line or a protocol into calls of the engine
	// or the container. Nobody but a command knows them.
	"internal/cli":  90,
	"internal/oci":  90,
	"internal/shim": 90,

	"internal/engine": 80,

	"internal/boundary/container": 70,
	"internal/boundary/gvisor":    70,
	"internal/boundary/runtime":   70,
	"internal/boundary/vm":        70,
	// The suite and the in-memory boundary stand where a boundary stands.
	"internal/boundary/boundarytest": 70,
	"internal/boundary/fake":         70,
	// A program that tests boot instead of cmd/bulkhead-agent.
	"internal/boundary/vm/vmtest/hostile": 100,

	// The guest's agent runs workloads with the host's container code.
	"internal/guest": 60,
	// The host's end of volumes: it is confined by the launch program.
	"internal/fileserver": 60,
	// Drives runtimes that are not ours; two boundaries come from it.
	"internal/ociruntime": 60,
	"internal/container":  50,
	// QEMU's confinement uses the container's assembler of seccomp filters.
	"internal/qemu":    55,
	"internal/image":   50,
	"internal/network": 50,
	// The name server of a network is confined by the launch program and the
	// container's assembler of seccomp filters. Bridges start it.
	"internal/network/dns":    55,
	"internal/network/bridge": 58,
	// passt and pasta are prepared by the launch program, in cgroups.
	"internal/network/user": 58,
	"internal/idrange":      40,
	// Rules about configurations; filters of system calls are interpreted.
	"internal/audit":  60,
	"internal/volume": 40,

	// Copies in and out of workloads; image/unpack has the same rules of tar.
	"internal/filetree": 28,

	// The prober tries calls in children that package launch forks.
	"internal/probe": 45,
	// So does the meter.
	"internal/meter": 45,

	"internal/launch": 30,
	"internal/trace":  22,
	"internal/sys":    20,

	"internal/leakcheck":      25,
	"internal/boundary":       35,
	"internal/fuse":           10,
	"internal/workload":       0,
	"internal/guest/protocol": 5,
	"internal/report":         5,
	// Shows documents; it brings html/template, which lean commands must not carry.
	"internal/report/page":          8,
	"internal/report/page/pagetest": 7,
}

// adapters are imported by commands only.
var adapters = []string{"internal/cli", "internal/oci", "internal/shim"}

// standardOnly are the packages that the guest agent, the prober and a later
// public API share; they must not drag anything along.
var standardOnly = []string{"internal/workload", "internal/guest/protocol", "internal/report"}

// systemCallers may import golang.org/x/sys/unix: everybody else asks them, so
// that what the project does to a machine is found in two places.
var systemCallers = []string{"internal/sys", "internal/launch"}

// systemCallersToo are the exceptions, each with its reason.
var systemCallersToo = map[string]string{
	"internal/qemu":                  "it plans system calls, so it names their constants, makes socket pairs and passes descriptors",
	"internal/cli/probing":           "it puts up shared memory for the prober to look for",
	"internal/container":             "it plans system calls, so it names their constants, and it looks at, joins and ends containers by descriptor",
	"internal/container/seccomp":     "it asks the kernel what its filters may do, and answers a filter's notifications",
	"internal/fileserver":            "it plans the system calls that confine the file server",
	"internal/fileserver/serve":      "it is the file server: it performs the guest's file system calls one by one",
	"internal/network/dns":           "it plans the system calls that confine the name server, and binds its sockets",
	"internal/network/dns/dial":      "it makes sockets and passes them, and does nothing else",
	"internal/network/dns/resolve":   "it is the name server: its sockets are descriptors that it was given",
	"internal/network/user":          "it plans the system calls that prepare passt and pasta, and makes their sockets",
	"internal/network/bridge":        "it names constants of netlink, binds ports, makes taps and joins network namespaces",
	"internal/guest/volume":          "it mounts a file system and is its device",
	"internal/container/runtimespec": "it fills in device numbers, and reads the kernel's version",
	"internal/guest/pid1":            "it is a guest's init: mounts, modules, clock, ports, the end of the machine",
	"internal/guest/pid1/testguest":  "it is an init, too",
	"internal/guest/system":          "it mounts a system's root and makes its console",
	"internal/meter":                 "it times system calls and tries them, one by one",
	"internal/probe":                 "it tries system calls one by one, and names them",
	"internal/probe/gate":            "it puts seccomp filters in force and answers one's notifications",
}

// lean are the commands that start once per workload and stay with it. The
// packages below cost several times the memory and the start time of all that
// these commands do.
var (
	lean      = []string{"cmd/bulkhead-oci", "cmd/bulkhead-supervisor", "cmd/bulkhead-init", "cmd/bulkhead-fileserver", "cmd/bulkhead-agent", "cmd/bulkhead-dns", "cmd/bulkhead-probe", "cmd/bulkhead-meter"}
	tooHeavy  = []string{"net/http", "html/template"}
	heavyTree = []string{
		"github.com/google/go-containerregistry",
		"github.com/spf13/cobra",
		"github.com/vishvananda/netlink",
		"github.com/google/nftables",
	}
)

// listed is what go list tells of one package.
type listed struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
}

// name is the path below the module's, "" for packages of others.
func (p listed) name() string {
	after, ok := strings.CutPrefix(p.ImportPath, module+"/")
	if !ok {
		return ""
	}
	return after
}

// list returns the module's packages and everything that they need.
func list(t *testing.T) map[string]listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,Imports,Deps", "./...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	packages := map[string]listed{}
	for d := json.NewDecoder(out); ; {
		var p listed
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal("read go list:", err)
		}
		packages[p.ImportPath] = p
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal("go list:", err)
	}
	return packages
}

// entry is the longest of the layers' names that covers a package.
func entry(name string) (string, bool) {
	for n := name; n != ""; {
		if _, ok := layers[n]; ok {
			return n, true
		}
		i := strings.LastIndexByte(n, '/')
		if i < 0 {
			break
		}
		n = n[:i]
	}
	return "", false
}

// within reports whether a package is one of the trees or lies beneath one.
func within(name string, trees []string) bool {
	return slices.ContainsFunc(trees, func(tree string) bool {
		return name == tree || strings.HasPrefix(name, tree+"/")
	})
}

func TestImportDirections(t *testing.T) {
	packages := list(t)
	seen := 0
	for _, p := range packages {
		name := p.name()
		if name == "" {
			continue
		}
		seen++
		from, ok := entry(name)
		if !ok {
			t.Errorf("%s is in no layer: add it to the table and to ARCHITECTURE.md", name)
			continue
		}
		for _, path := range p.Imports {
			to := packages[path].name()
			if to == "" {
				continue
			}
			target, ok := entry(to)
			if !ok || target == from {
				continue // reported above, or of the same entry
			}
			if layers[target] >= layers[from] {
				t.Errorf("%s imports %s: layer %d must not know layer %d", name, to, layers[from], layers[target])
			}
			if within(to, adapters) && !within(name, []string{"cmd", "tests"}) {
				t.Errorf("%s imports %s: an adapter is known to commands only", name, to)
			}
		}
	}
	if seen == 0 {
		t.Fatal("go list named no package of the module")
	}
}

func TestSharedWordsNeedOnlyTheStandardLibrary(t *testing.T) {
	packages := list(t)
	for _, p := range packages {
		if !within(p.name(), standardOnly) {
			continue
		}
		for _, path := range p.Deps {
			if d := packages[path]; !d.Standard && !within(d.name(), standardOnly) {
				t.Errorf("%s needs %s", p.name(), path)
			}
		}
	}
}

func TestSystemCallsInFewPackages(t *testing.T) {
	used := map[string]bool{}
	for _, p := range list(t) {
		name := p.name()
		if name == "" || !slices.Contains(p.Imports, "golang.org/x/sys/unix") || within(name, systemCallers) {
			continue
		}
		used[name] = true
		if systemCallersToo[name] == "" {
			t.Errorf("%s imports golang.org/x/sys/unix: add what it needs to internal/sys", name)
		}
	}
	for name := range systemCallersToo {
		if !used[name] {
			t.Errorf("%s no longer imports golang.org/x/sys/unix: drop the exception", name)
		}
	}
}

func TestLeanCommands(t *testing.T) {
	packages := list(t)
	for _, command := range lean {
		p, ok := packages[module+"/"+command]
		if !ok {
			t.Errorf("no command %s", command)
			continue
		}
		for _, path := range p.Deps {
			if slices.Contains(tooHeavy, path) || within(path, heavyTree) {
				t.Errorf("%s needs %s, which it must not carry", command, path)
			}
		}
	}
}
