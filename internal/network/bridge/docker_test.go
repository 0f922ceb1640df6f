package bridge

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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
func dockerContainer(t *testing.T) *namespace {
	t.Helper()
	n := newNamespace(t)
	if err := makeVeth("docker0", "vethdocker", "eth0", net.HardwareAddr{2, 0x42, 172, 17, 0, 2}, 1500, n.ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { deleteLink("vethdocker") })
	n.command("ip", "addr", "add", "172.17.0.2/16", "dev", "eth0")
	n.command("ip", "link", "set", "eth0", "up")
	n.command("ip", "route", "add", "default", "via", "172.17.0.1")
	return n
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
	out, container := outside(t), dockerContainer(t)
	command(t, "ip", "route", "add", "default", "via", "192.0.2.2", "dev", "uplink")
	container.do(func() error { return nil })
	serve(t, out, ":9000")
	serve(t, container, ":80")
	l.create(network.Network{Name: "other"})
	r := withPorts(request("bridge"), workload.Port{HostPort: 8080, Port: 80, Protocol: "tcp"})
	web, peer, stranger := l.start(r), l.start(request("bridge")), l.start(request("other"))
	serve(t, web.namespace, ":80")
	if len(web.a.Warnings) != 0 {
		t.Errorf("warnings %q", web.a.Warnings)
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
		if n := strings.Count(rules, "\n"); n != 9 && n != 8 {
			t.Errorf("interface %q makes the rules\n%s", link, rules)
		}
	})
}
