package bridge

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// dockerRules are those that dockerd 20.10 makes, with a container's network.
const dockerRules = `*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
`

func restore(t *testing.T, program, rules string) {
	t.Helper()
	cmd := exec.Command(program, "-w")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// withDockerRules makes Docker's rules and its bridge, without Docker.
func withDockerRules(t *testing.T) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "docker0"
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		t.Fatal(err)
	}
	command(t, "ip", "addr", "add", "172.17.0.1/16", "dev", "docker0")
	command(t, "ip", "link", "set", "docker0", "up")
	restore(t, "iptables-restore", dockerRules)
	restore(t, "ip6tables-restore", dockerRules)
	for _, f := range []string{"ipv4", "ipv6"} {
		if err := set("1", f, "conf", "all", "forwarding"); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { clearDocker(t) })
}

func clearDocker(t *testing.T) {
	deleteLink("docker0")
	command(t, "nft", "flush", "ruleset")
}

// dockerContainer is a namespace in Docker's network.
func dockerContainer(t *testing.T) *namespace { return behind(t, "docker0", "172.17.0") }

// behind is a namespace on another engine's bridge, whose addresses begin so: the
// bridge has 1, and this 2.
func behind(t *testing.T, bridge, net24 string) *namespace {
	t.Helper()
	n := newNamespace(t)
	port := "veth" + bridge
	if err := makeVeth(bridge, port, "eth0", net.HardwareAddr{2, 0x42, 172, 17, 0, 2}, 1500, n.ns, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { deleteLink(port) })
	n.command("ip", "addr", "add", net24+".2/24", "dev", "eth0")
	n.command("ip", "link", "set", "eth0", "up")
	n.command("ip", "route", "add", "default", "via", net24+".1")
	return n
}

// behindNew makes the bridge, too.
func behindNew(t *testing.T, bridge, net24 string) *namespace {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridge
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { deleteLink(bridge) })
	command(t, "ip", "addr", "add", net24+".1/24", "dev", bridge)
	command(t, "ip", "link", "set", bridge, "up")
	return behind(t, bridge, net24)
}

// TestDockersNamedBridges: Docker protects its networks whatever their bridges are
// called (com.docker.network.bridge.name), and whenever they are made.
func TestDockersNamedBridges(t *testing.T) {
	l := newLab(t)
	withDockerRules(t)
	serve(t, behindNew(t, "app0", "10.97.0"), ":80")
	w := l.start(request("bridge"))
	serve(t, behindNew(t, "app1", "10.98.0"), ":80")
	for _, when := range []string{"with one workload", "with two"} {
		for _, to := range []string{"10.97.0.2:80", "10.98.0.2:80"} {
			if got := askFor(t, w.namespace, "tcp", to, impatience); got != "" {
				t.Errorf("%s: a workload reaches Docker's container at %s as %q", when, to, got)
			}
		}
		l.start(request("bridge"))
	}
	command(t, "iptables", "-F", "FORWARD")
	command(t, "iptables", "-P", "FORWARD", "ACCEPT")
	if got := ask(t, w.namespace, "tcp", "10.98.0.2:80"); got == "" {
		t.Error("without Docker's rules it does not reach it either: the test is wrong")
	}
}

// TestDockersChainOfOurs: what lets workloads pass Docker's rules is made anew by the
// next workload when somebody flushed it, or when the host has another way out.
func TestDockersChainOfOurs(t *testing.T) {
	for _, tt := range []struct {
		name    string
		disturb func(t *testing.T) (out *namespace)
	}{
		{"flushed", func(t *testing.T) *namespace {
			out := outside(t)
			command(t, "iptables", "-F", passChain)
			return out
		}},
		{"a way out that comes later", outside},
		{"a bridge that becomes the way out", func(t *testing.T) *namespace {
			out := outside(t)
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "br-lan"
			if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { deleteLink("br-lan") })
			for _, c := range []string{
				"link set uplink master br-lan", "addr flush dev uplink", "addr add 192.0.2.1/24 dev br-lan", "link set br-lan up",
				"route add default via 192.0.2.2 dev br-lan",
			} {
				command(t, append([]string{"ip"}, strings.Fields(c)...)...)
			}
			return out
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			withDockerRules(t)
			w := l.start(request("bridge"))
			out := tt.disturb(t)
			serve(t, out, ":9000")
			if got := askFor(t, w.namespace, "tcp", "192.0.2.2:9000", impatience); got != "" {
				t.Errorf("before the next workload: got answer %q: the test is wrong", got)
			}
			l.start(request("bridge"))
			if got := ask(t, w.namespace, "tcp", "192.0.2.2:9000"); got != "192.0.2.1" {
				t.Errorf("after it: got answer %q, want 192.0.2.1\n%s", got, command(t, "iptables", "-S", passChain))
			}
		})
	}
}

// TestDockersChainStays: what lets workloads pass Docker's rules is written once, and
// not for each network.
func TestDockersChainStays(t *testing.T) {
	l := newLab(t)
	withDockerRules(t)
	l.create(network.Network{Name: "one"})
	l.create(network.Network{Name: "two"})
	handle := regexp.MustCompile(`handle \d+`)
	handles := func() (out []string) {
		for _, family := range []string{"ip", "ip6"} {
			out = append(out, handle.FindAllString(command(t, "nft", "-a", "list", "chain", family, "filter", passChain), -1)...)
		}
		return out
	}
	l.start(request("bridge"))
	before := handles()
	l.start(request("bridge", "one", "two"))
	if after := handles(); !slices.Equal(after, before) || len(after) == 0 {
		t.Errorf("got rules with %q, want, as before, %q", after, before)
	}
}

// TestBesideDockersRules has Docker's rules made before our network.
func TestBesideDockersRules(t *testing.T) {
	eachNetfilter(t, func(t *testing.T) {
		l := newLab(t)
		withDockerRules(t)
		besideDocker(t, l)
	})
}

// TestDockerComesLater has them made between two workloads.
func TestDockerComesLater(t *testing.T) {
	l := newLab(t)
	first := l.start(request("bridge"))
	withDockerRules(t)
	if o, err := l.Obstacles(context.Background()); err != nil || len(o) != 2 || !strings.Contains(o[0].Fix, "repair") {
		t.Errorf("Docker's rules without ours: got %+v, %v, want one for each family that says how to repair", o, err)
	}
	if err := l.Repair(context.Background()); err != nil {
		t.Fatal(err)
	}
	if o, err := l.Obstacles(context.Background()); err != nil || len(o) != 0 {
		t.Errorf("after the repair: got %+v, %v", o, err)
	}
	if err := l.Release(context.Background(), first.id); err != nil {
		t.Fatal(err)
	}
	besideDocker(t, l)
}

// TestDocker runs the real one, in this test's network.
func TestDocker(t *testing.T) {
	if testing.Short() {
		t.Skip("starts dockerd")
	}
	if _, err := exec.LookPath("dockerd"); err != nil {
		t.Skip("dockerd is not installed")
	}
	l := newLab(t)
	startDocker(t)
	besideDocker(t, l)
}

func startDocker(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "dockerd") // its socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "dockerd", "--data-root", dir+"/data", "--exec-root", dir+"/exec",
		"--pidfile", dir+"/pid", "-H", "unix://"+dir+"/sock", "--storage-driver", "vfs")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		log.Close()
		clearDocker(t)
		os.RemoveAll(dir)
	})
	for range 300 {
		if err := exec.Command("docker", "-H", "unix://"+dir+"/sock", "version").Run(); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	b, _ := os.ReadFile(log.Name())
	t.Fatalf("dockerd does not answer: %s", b)
}

// besideDocker: our workloads reach whom they should, and neither side's reach the
// other's.
func besideDocker(t *testing.T, l *lab) {
	out, container, guest := outside(t), dockerContainer(t), behindNew(t, "br1", "10.96.0")
	command(t, "ip", "route", "add", "default", "via", "192.0.2.2", "dev", "uplink")
	container.do(func() error { return nil })
	serve(t, out, ":9000")
	serve(t, container, ":80")
	serve(t, guest, ":80")
	l.create(network.Network{Name: "other"})
	r := withPorts(request("bridge"), workload.Port{HostPort: 8080, Port: 80, Protocol: "tcp"})
	web, peer, stranger := l.start(r), l.start(request("bridge")), l.start(request("other"))
	serve(t, web.namespace, ":80")
	if len(web.a.Warnings) != 0 {
		t.Errorf("warnings %q", web.a.Warnings)
	}
	ways, err := exits()
	if err != nil {
		t.Fatal(err)
	}
	found, err := ofDocker(context.Background())
	if err != nil || len(found) == 0 {
		t.Fatalf("got %+v, %v", found, err)
	}
	for _, f := range found {
		if !f.passing || !f.passed.current(ways) {
			t.Errorf("%s: got %+v, want rules for %q, which are not made again at each start", f.program, f.passed, ways)
		}
	}
	for _, tt := range []struct {
		name string
		from *namespace
		to   string
		want string
	}{
		{"neighbour", peer.namespace, hostPort(web.addr(true), 80), peer.addr(true).String()},
		{"out", peer.namespace, "192.0.2.2:9000", "192.0.2.1"},
		{"published, from outside", out, "192.0.2.1:8080", "192.0.2.2"},
		{"published, from the host", nil, "127.0.0.1:8080", web.a.Host[0].String()},
		{"published, from another network", stranger.namespace, "192.0.2.1:8080", stranger.addr(true).String()},
		{"published, from Docker's container", container, "192.0.2.1:8080", "172.17.0.2"},
		{"published, from behind another bridge", guest, "192.0.2.1:8080", "10.96.0.2"},
		{"behind another bridge", peer.namespace, "10.96.0.2:80", ""},
		{"other network", stranger.namespace, hostPort(web.addr(true), 80), ""},
		{"Docker's container", peer.namespace, "172.17.0.2:80", ""},
		{"from Docker's container", container, hostPort(web.addr(true), 80), ""},
		{"Docker's container goes out", container, "192.0.2.2:9000", "172.17.0.2"},
	} {
		wait := patience
		if tt.want == "" {
			wait = impatience
		}
		if tt.name == "Docker's container goes out" { // Docker's masquerade is not there, or makes it the host
			out.command("ip", "route", "replace", "172.17.0.0/16", "via", "192.0.2.1")
			if got := ask(t, tt.from, "tcp", tt.to); got != tt.want && got != "192.0.2.1" {
				t.Errorf("%s: got answer %q", tt.name, got)
			}
			continue
		}
		got := askFor(t, tt.from, "tcp", tt.to, wait)
		if tt.from == container && got == web.a.Host[0].String() {
			continue // masqueraded by Docker, as all that leaves its network
		}
		if got != tt.want {
			t.Errorf("%s, to %s: got answer %q, want %q", tt.name, tt.to, got, tt.want)
		}
	}
	if o, err := l.Obstacles(context.Background()); err != nil || len(o) != 0 {
		t.Errorf("got obstacles %+v, %v", o, err)
	}
	for _, b := range []*box{web, peer, stranger} {
		if err := l.Release(context.Background(), b.id); err != nil {
			t.Error(err)
		}
	}
	for _, n := range []string{"other", "bridge"} {
		made, err := l.read(n)
		if err == nil {
			err = l.remove(context.Background(), made)
		}
		if err != nil {
			t.Error(err)
		}
	}
	for _, program := range []string{"iptables-save", "ip6tables-save"} {
		if rules := command(t, program); strings.Contains(rules, passChain) {
			t.Errorf("without a network %s still shows our chain:\n%s", program, rules)
		}
	}
}

func FuzzPassRules(f *testing.F) {
	f.Add("eth0")
	f.Add("-j ACCEPT\n")
	f.Fuzz(func(t *testing.T, link string) {
		rules := passRules([]string{link})
		if n := strings.Count(rules, "\n"); n != 7 && n != 6 {
			t.Errorf("interface %q makes the rules\n%s", link, rules)
		}
		if p := passedOf(rules); !p.current([]string{link}) {
			t.Errorf("interface %q makes the rules\n%s, read as %+v", link, rules, p)
		}
	})
}
