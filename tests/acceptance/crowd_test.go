package acceptance

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// member is one workload of a crowd.
type member struct {
	name, network string
	machine       bool
}

// crowd is how many containers and machines take part: the numbers of
// BULKHEAD_CROWD ("200,10"), which the full tier has without being asked.
func crowd(t *testing.T) (containers, machines int) {
	t.Helper()
	containers, machines = 200, 10
	if testing.Short() {
		containers, machines = 12, 0
	}
	if text := os.Getenv("BULKHEAD_CROWD"); text != "" {
		if _, err := fmt.Sscanf(text, "%d,%d", &containers, &machines); err != nil {
			t.Fatalf("BULKHEAD_CROWD=%q: want two numbers, such as 200,10", text)
		}
	}
	return containers, machines
}

// crowdNetworks are the networks of a crowd: IPv4 alone, both families, and one
// without a way out.
var crowdNetworks = map[string][]string{
	"plain":  {"--subnet", "10.211.0.0/16"},
	"both":   {"--subnet", "10.212.0.0/16", "--ipv6"},
	"inside": {"--subnet", "10.213.0.0/16", "--internal"},
}

// members spreads a crowd over the networks.
func members(containers, machines int) []member {
	names := []string{"plain", "both", "inside"}
	var all []member
	for n := range containers {
		all = append(all, member{fmt.Sprintf("c%d", n), names[n%3], false})
	}
	for n := range machines {
		all = append(all, member{fmt.Sprintf("m%d", n), names[n%3], true})
	}
	return all
}

// begin starts a member in the background.
func (w *world) begin(m member) result {
	args := []string{"run", "-d", "--name", m.name, "--network", m.network, "--pids-limit", "32"}
	if m.machine {
		args = append(args, "--boundary", "vm", "--memory", "64m")
	}
	return w.do(append(args, "box", "httpd", "-f", "-p", "80", "-h", "/etc")...)
}

// parallel calls f for each of all, so many at a time.
func parallel[T any](at int, all []T, f func(T)) {
	var wg sync.WaitGroup
	next := make(chan T)
	for range at {
		wg.Go(func() {
			for x := range next {
				f(x)
			}
		})
	}
	for _, x := range all {
		next <- x
	}
	close(next)
	wg.Wait()
}

// TestCrowd starts many workloads in three networks, has each reach its
// neighbour by name, and removes them: nothing is left on the host. With -v it
// prints times and memory.
func TestCrowd(t *testing.T) {
	w := newWorld(t)
	containers, machines := crowd(t)
	if machines > 0 {
		w.withMachines()
	}
	before := hostNetwork(t)
	for name, flags := range crowdNetworks {
		w.ok(append(append([]string{"network", "create"}, flags...), name)...)
	}
	all := members(containers, machines)
	began := time.Now()
	parallel(4, all, func(m member) {
		if r := w.begin(m); r.code != 0 {
			t.Errorf("%s: %+v", m.name, r)
		}
	})
	t.Logf("%d containers and %d machines started in %.1f s", containers, machines, time.Since(began).Seconds())
	if t.Failed() {
		return
	}
	t.Logf("memory of all their processes on the host: %d MB", descendantsPSS(t)>>20)

	began = time.Now()
	parallel(4, all, func(m member) {
		next := neighbour(all, m)
		r := w.reach(m.name, next.name)
		if r.code != 0 || !strings.Contains(r.out, next.name) {
			t.Errorf("%s does not reach %s in network %s: %+v", m.name, next.name, m.network, r)
		}
	})
	t.Logf("each reached its neighbour by name in %.1f s", time.Since(began).Seconds())
	if r := w.reach("c0", "c1"); r.code == 0 {
		t.Errorf("c0 reaches a name of another network: %+v", r)
	}

	began = time.Now()
	w.ok("rm", "-f", all[0].name) // one alone, while its neighbours go on
	names := make([]string, 0, len(all))
	for _, m := range all[1:] {
		names = append(names, m.name)
	}
	for chunk := range slices.Chunk(names, 50) {
		w.ok(append([]string{"rm", "-f"}, chunk...)...)
	}
	t.Logf("removed in %.1f s", time.Since(began).Seconds())
	for name := range crowdNetworks {
		w.ok("network", "rm", name)
	}
	w.wantNothing()
	wantHostNetwork(t, before)
}

// reach has a workload fetch a file of another, by its name.
func (w *world) reach(from, to string) result {
	return w.do("exec", from, "wget", "-qO-", "http://"+to+"/hosts")
}

// neighbour is the next member of a member's network.
func neighbour(all []member, m member) member {
	i := slices.Index(all, m)
	for n := 1; ; n++ {
		if next := all[(i+n)%len(all)]; next.network == m.network {
			return next
		}
	}
}

// TestCrowdKilled kills processes of a crowd that starts and stops, at random:
// commands, supervisors, helpers and name servers. What the next commands find
// they clean up, networks go on working, and in the end nothing is left.
func TestCrowdKilled(t *testing.T) {
	rounds, size := 12, 24
	if testing.Short() {
		rounds, size = 2, 8
	}
	w := newWorld(t)
	before := hostNetwork(t)
	for name, flags := range crowdNetworks {
		w.ok(append(append([]string{"network", "create"}, flags...), name)...)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	killed := map[string]int{}
	for range rounds {
		done := make(chan struct{})
		go func() {
			defer close(done)
			parallel(4, members(size, 0), func(m member) { w.begin(m) }) // some fail: they were killed
		}()
		for running := true; running; {
			select {
			case <-done:
				running = false
			case <-time.After(time.Duration(5+random.IntN(60)) * time.Millisecond):
				if name := killOne(random); name != "" {
					killed[name]++
				}
			}
		}
		// Whoever comes next finds a working network.
		w.do("rm", "-f", "probe")
		w.do("rm", "-f", "peer")
		w.begin(member{"peer", "both", false})
		w.begin(member{"probe", "both", false})
		if r := w.reach("probe", "peer"); r.code != 0 {
			t.Errorf("after kills %v the network does not work: %+v", killed, r)
		}
		if ids := strings.Fields(w.ok("ps", "-aq")); len(ids) > 0 {
			w.ok(append([]string{"rm", "-f"}, ids...)...)
		}
	}
	t.Logf("killed: %v", killed)
	for name := range crowdNetworks {
		w.ok("network", "rm", name)
	}
	w.wantNothing()
	wantHostNetwork(t, before)
}

// killOne kills one process of this test's, any program of ours, and returns
// its name.
func killOne(random *rand.Rand) string {
	var found []int
	names := map[int]string{}
	for pid := range descendants() {
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if name := strings.TrimSpace(string(comm)); strings.HasPrefix(name, "bulkhead") {
			found = append(found, pid)
			names[pid] = name
		}
	}
	if len(found) == 0 {
		return ""
	}
	slices.Sort(found)
	pid := found[random.IntN(len(found))]
	if syscall.Kill(pid, syscall.SIGKILL) != nil {
		return ""
	}
	return names[pid]
}

// descendants are the processes below this one, which is a subreaper.
func descendants() map[int]bool {
	parent := map[int]int{}
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) > 1 {
			parent[pid], _ = strconv.Atoi(f[1])
		}
	}
	below := map[int]bool{}
	for pid := range parent {
		for p := parent[pid]; p > 1; p = parent[p] {
			if p == os.Getpid() {
				below[pid] = true
				break
			}
		}
	}
	return below
}

// descendantsPSS is what all processes below this one use, in bytes; see
// proc_pid_smaps(5).
func descendantsPSS(t *testing.T) int64 {
	t.Helper()
	var sum int64
	for pid := range descendants() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			var kib int64
			if n, _ := fmt.Sscanf(line, "Pss: %d kB", &kib); n == 1 {
				sum += kib << 10
			}
		}
	}
	return sum
}

// hostNetwork is what there is of the host's network: links, addresses, rules.
func hostNetwork(t *testing.T) map[string]string {
	t.Helper()
	state := map[string]string{}
	for _, args := range [][]string{
		{"ip", "-o", "link"}, {"ip", "-o", "address"}, {"ip", "route"}, {"ip", "-6", "route"}, {"nft", "list", "ruleset"},
	} {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
		state[strings.Join(args, " ")] = string(out)
	}
	return state
}

// wantHostNetwork checks that the host's network is what it was.
func wantHostNetwork(t *testing.T, before map[string]string) {
	t.Helper()
	for what, now := range hostNetwork(t) {
		if now != before[what] {
			t.Errorf("%s before:\n%s\nand now:\n%s", what, before[what], now)
		}
	}
}
