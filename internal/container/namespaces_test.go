package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func without(t specs.LinuxNamespaceType) func(*Config) {
	return func(c *Config) {
		c.Spec.Linux.Namespaces = slices.DeleteFunc(c.Spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == t })
	}
}

// TestHostPIDs: the host's processes are seen, and root inside can do nothing
// to them.
func TestHostPIDs(t *testing.T) {
	me := os.Getpid()
	out, _ := run(t, without(specs.PIDNamespace), "sh", "-c", fmt.Sprintf(
		`test -d /proc/%d && echo seen; kill -9 %d 2>&1; ls /proc/%d/root/ 2>&1; cat /proc/%d/environ 2>&1; cat /proc/%d/mem 2>&1`, me, me, me, me, me))
	if !strings.HasPrefix(out, "seen\n") || strings.Count(strings.ToLower(out), "permi") < 4 {
		t.Errorf("got %q, want the process seen and four refusals", out)
	}
}

// TestHostNetwork: the host's interfaces are seen, and cannot be changed.
func TestHostNetwork(t *testing.T) {
	out, _ := run(t, func(c *Config) {
		without(specs.NetworkNamespace)(c)
		all := KnownCapabilities()
		c.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	}, "sh", "-c", `readlink /proc/self/ns/net; ip link set lo down; ip addr add 127.77.0.1/32 dev lo; echo done`)
	host, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out, host+"\n") || strings.Count(out, "not permitted") != 2 {
		t.Errorf("got %q, want %s and two refusals", out, host)
	}
}

// TestKillWithoutPIDNamespace: the cgroup is what ends every process.
func TestKillWithoutPIDNamespace(t *testing.T) {
	root := busybox(t)
	ctx := context.Background()
	parent := fmt.Sprintf("/bulkhead-test-%d", os.Getpid())
	cg, err := cgroup.New(parent+"/kill", &specs.LinuxResources{}, cgroup.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := cg.Create(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cg.RemoveEmptyParents(parent) })
	cfg := Config{ID: "kill", Dir: t.TempDir(), Spec: testSpec("sh", "-c", "sleep 1000 & sleep 1000 & sleep 1000"), Layers: layersOf(t, root, testBase), Cgroup: cg}
	without(specs.PIDNamespace)(&cfg)
	c, err := Create(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	if cg.Exists() {
		t.Error("the cgroup is left")
	}
}

// TestJoin: namespaces of another container are joined by path.
func TestJoin(t *testing.T) {
	root := busybox(t)
	ctx := context.Background()
	cfg := Config{ID: "first", Dir: t.TempDir(), Spec: testSpec("sleep", "60"), Layers: layersOf(t, root, testBase)}
	first, err := Create(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Delete(ctx)
	if err := first.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	link := func(ns string) string {
		s, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", first.Pid, ns))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	joined := map[specs.LinuxNamespaceType]string{"network": "net", "ipc": "ipc", "uts": "uts", "pid": "pid", "user": "user"}
	out, _ := run(t, func(c *Config) {
		for i, n := range c.Spec.Linux.Namespaces {
			if file, ok := joined[n.Type]; ok {
				c.Spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/%s", first.Pid, file)
			}
		}
		c.Spec.Hostname = ""
	}, "sh", "-c", "for n in net ipc uts pid user; do readlink /proc/self/ns/$n; done; hostname; ps")
	want := strings.Join([]string{link("net"), link("ipc"), link("uts"), link("pid"), link("user"), "cell"}, "\n") + "\n"
	if !strings.HasPrefix(out, want) || !strings.Contains(out, "sleep 60") {
		t.Errorf("got\n%s\nwant it to begin\n%sand to show the first container's process", out, want)
	}
}

// TestCannotBeIDMapped: a volume on a file system without ID mapping is
// refused by name, not mounted with wrong owners.
func TestCannotBeIDMapped(t *testing.T) {
	_, _, err := tryRun(t, func(c *Config) {
		c.Spec.Mounts = append(c.Spec.Mounts, specs.Mount{Destination: "/vol", Type: "bind", Source: "/sys/kernel", Options: []string{"bind", "idmap"}})
	}, "true")
	if !errors.Is(err, workload.ErrUnsupported) || !strings.Contains(err.Error(), "cannot be ID-mapped") {
		t.Errorf("got %v, want an error that says the file system cannot be ID-mapped", err)
	}
}

// TestSysctls: parameters of the container's own namespaces are set, others
// refused.
func TestSysctls(t *testing.T) {
	out, _ := run(t, func(c *Config) {
		c.Spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "80", "kernel/shm_rmid_forced": "1", "fs.mqueue.msg_max": "20"}
	}, "sh", "-c", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced /proc/sys/fs/mqueue/msg_max")
	if out != "80\n1\n20\n" {
		t.Errorf("got %q", out)
	}
	for _, key := range []string{"kernel.panic", "vm.swappiness", "net..x/../../kernel/panic", "net/../kernel/panic", "kernel.hostname", "net"} {
		if _, _, err := tryRun(t, func(c *Config) { c.Spec.Linux.Sysctl = map[string]string{key: "1"} }, "true"); err == nil {
			t.Errorf("sysctl %q was taken", key)
		}
	}
	if _, _, err := tryRun(t, func(c *Config) {
		without(specs.NetworkNamespace)(c)
		c.Spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	}, "true"); err == nil {
		t.Error("a network parameter of the host was taken")
	}
}
