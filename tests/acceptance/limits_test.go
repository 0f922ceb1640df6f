package acceptance

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMemoryLimit uses more memory than is allowed: the kernel ends it, and run,
// inspect and ps say why. A little less is no reason to.
func TestMemoryLimit(t *testing.T) {
	w := newWorld(t)
	// tail keeps a line without end in memory.
	hungry := func(mb int) []string {
		return []string{"sh", "-c", fmt.Sprintf("head -c %d /dev/zero | tail -n 1 | wc -c", mb<<20)}
	}
	r := w.do(append([]string{"run", "--name", "big", "--memory", "32m", "box"}, "tail", "-n", "1", "/dev/zero")...)
	if r.code != 137 || !strings.Contains(r.err, "exceeding the memory limit") {
		t.Errorf("got %+v", r)
	}
	if got := w.inspect("big", ".State.OOMKilled") + " " + w.inspect("big", ".State.ExitCode"); got != "true 137" {
		t.Errorf("inspect: %s", got)
	}
	if got := w.ok("ps", "-a", "--format", "{{.Status}}"); !strings.Contains(got, "out of memory") {
		t.Errorf("ps: %s", got)
	}
	r = w.do(append([]string{"run", "--rm", "--memory", "64m", "box"}, hungry(8)...)...)
	if want := fmt.Sprintln(8 << 20); r.out != want || r.code != 0 || r.err != "" {
		t.Errorf("got %+v", r)
	}
	// What is killed need not be the first process.
	r = w.do(append([]string{"run", "--rm", "--memory", "32m", "box"}, "sh", "-c", "tail -n 1 /dev/zero; echo $?")...)
	if r.out != "137\n" || r.code != 0 || !strings.Contains(r.err, "exceeding the memory limit") {
		t.Errorf("got %+v", r)
	}
	// Swap is limited with it: a file in memory counts, wherever it lies.
	r = w.do("run", "--rm", "--memory", "32m", "--memory-swap", "32m", "--shm-size", "100m", "box", "dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=90")
	if r.code != 137 {
		t.Errorf("got %+v", r)
	}
}

// cpuTime returns the processor time of a cgroup.
func cpuTime(t *testing.T, cgroup string) time.Duration {
	t.Helper()
	if b, err := os.ReadFile("/sys/fs/cgroup/cpuacct" + cgroup + "/cpuacct.usage"); err == nil {
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(n)
	}
	b, err := os.ReadFile("/sys/fs/cgroup" + cgroup + "/cpu.stat")
	if err != nil {
		t.Fatal(err)
	}
	var us int64
	if _, err := fmt.Sscanf(string(b), "usage_usec %d", &us); err != nil {
		t.Fatal(err)
	}
	return time.Duration(us) * time.Microsecond
}

// TestCPULimit lets two busy loops share a quarter of a processor. What they
// get is never more than that by a tenth; less is the machine's load.
func TestCPULimit(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for seconds")
	}
	w := newWorld(t)
	w.start("busy", "--cpus", "0.25", "box", "sh", "-c", "while :; do :; done & while :; do :; done")
	cgroup := w.inspect("busy", ".Host.Cgroup")
	time.Sleep(time.Second) // a new cgroup may first use what it saved
	begin, used := time.Now(), cpuTime(t, cgroup)
	time.Sleep(8 * time.Second)
	got := float64(cpuTime(t, cgroup)-used) / float64(time.Since(begin))
	if got > 0.275 {
		t.Errorf("used %.3f processors, want at most 0.275", got)
	}
	if got < 0.225 {
		if idle(t) {
			t.Errorf("used %.3f processors, want at least 0.225", got)
		}
		t.Logf("used only %.3f processors: the machine is busy", got)
	}
}

// idle tells whether a processor was free lately.
func idle(t *testing.T) bool {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	var load float64
	fmt.Sscanf(string(b), "%f", &load)
	n, _ := os.ReadFile("/proc/cpuinfo")
	return load < float64(strings.Count(string(n), "processor\t:"))
}

// TestLimitsInside looks at each limit from inside.
func TestLimitsInside(t *testing.T) {
	w := newWorld(t)
	tests := []struct {
		flags, script string
		code          int
		out, err      string // parts of them
	}{
		// The shell, and three children more than fit.
		{"--pids-limit 4", "for i in 1 2 3 4 5 6; do sleep 3 & done; echo all", 2, "", "can't fork"},
		{"--pids-limit 20", "for i in 1 2 3 4 5 6; do sleep 0 & done; wait; echo all", 0, "all", ""},
		{"--cpuset-cpus 0", "nproc; grep Cpus_allowed_list /proc/self/status", 0, "1\nCpus_allowed_list:\t0\n", ""},
		{"--ulimit nofile=32:64", "ulimit -Sn; ulimit -Hn; ulimit -n 65", 1, "32\n64\n", "not permitted"},
		{"--ulimit nproc=3 --user app", "for i in 1 2 3 4 5 6; do sleep 3 & done; echo all", 2, "", "can't fork"},
		{"--ulimit fsize=4096", "trap '' XFSZ; head -c 8192 /dev/zero >/tmp/x; wc -c </tmp/x", 0, "4096\n", ""},
		{"--ulimit core=0", "ulimit -c", 0, "0\n", ""},
		{"--shm-size 1m", "dd if=/dev/zero of=/dev/shm/x bs=4k count=999 2>/dev/null; wc -c </dev/shm/x", 0, "1048576\n", ""},
		{"--tmpfs /t:size=1m,mode=1770", "stat -c %a /t; dd if=/dev/zero of=/t/x bs=4k count=999 2>/dev/null; wc -c </t/x", 0, "1770\n1048576\n", ""},
		{"--read-only", "touch /x", 1, "", "Read-only file system"},
		{"--read-only --tmpfs /tmp", "touch /tmp/x && echo yes; mount -o remount,rw / || echo no", 0, "yes\nno\n", ""},
		{"--memory-reservation 16m --memory 32m", "echo ok", 0, "ok\n", ""},
		{"--oom-score-adj 300", "cat /proc/self/oom_score_adj", 0, "300\n", ""},
		{"--sysctl net.ipv4.ip_forward=1", "cat /proc/sys/net/ipv4/ip_forward", 0, "1\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.flags, func(t *testing.T) {
			args := append(append([]string{"run", "--rm"}, strings.Fields(tt.flags)...), "box", "sh", "-c", tt.script)
			r := w.do(args...)
			if r.code != tt.code || !strings.Contains(r.out, tt.out) || !strings.Contains(r.err, tt.err) {
				t.Errorf("%s: got %+v", tt.script, r)
			}
		})
	}
}

// TestImpossibleLimits asks for what cannot be: an error for a person, exit code
// 125, and nothing left behind.
func TestImpossibleLimits(t *testing.T) {
	w := newWorld(t)
	for flags, word := range map[string]string{
		"--memory 4k":                       "less than the 6 MiB",
		"--memory -1m":                      "negative",
		"--memory 99999999999999999999g":    "--memory",
		"--memory lots":                     "not a size",
		"--memory 20m --memory-swap 10m":    "less than --memory",
		"--memory-swap 20m":                 "no --memory",
		"--pids-limit 1":                    "two processes",
		"--pids-limit 1 --init":             "two processes",
		"--pids-limit 3 --init":             "several threads",
		"--pids-limit -2":                   "negative",
		"--pids-limit 99999999":             "more than the kernel",
		"--pids-limit x":                    "--pids-limit",
		"--cpus 0.0001":                     "from 0.01",
		"--cpus 1000":                       "this machine has",
		"--cpus -1":                         "--cpus",
		"--cpus nan":                        "--cpus",
		"--cpus inf":                        "--cpus",
		"--cpuset-cpus 4000":                `--cpuset-cpus "4000": 4000 is not available here`,
		"--cpuset-cpus 1-0":                 "not a list",
		"--cpuset-cpus ,":                   "not a list",
		"--cpuset-mems 1000":                `--cpuset-mems "1000": 1000 is not available here`,
		"--cpu-shares 1":                    "out of range",
		"--ulimit nofile=3":                 "less than",
		"--ulimit nofile=9:8":               "above the hard",
		"--ulimit nonsense=3":               "unknown limit",
		"--ulimit nofile=-5":                "not a limit",
		"--shm-size 0":                      "less than a page",
		"--shm-size -1":                     "negative",
		"--tmpfs /t:size=-1":                "size",
		"--tmpfs t":                         "absolute",
		"--blkio-weight 5":                  "out of range",
		"--device-write-bps /dev/null:1m":   `--device-write-bps "/dev/null:1048576": /dev/null is not a block device`,
		"--device-read-iops /dev/nope:7":    `--device-read-iops "/dev/nope:7": no such file`,
		"--device-write-bps /dev/null:0":    "stop everything",
		"--oom-score-adj 1001":              "out of range",
		"--stop-timeout -2":                 "--stop-timeout",
		"--sysctl vm.swappiness=1":          "whole machine",
		"--sysctl net.ipv4.no_such_thing=1": "no such file",
	} {
		args := append(append([]string{"run", "--rm"}, strings.Fields(flags)...), "box", "true")
		r := w.do(args...)
		if r.code != 125 {
			t.Errorf("%s: got %+v", flags, r)
			continue
		}
		if strings.Contains(flags, "no_such_thing") {
			continue // says which file of /proc/sys it could not open, and how
		}
		w.oneSentence(flags, r, word)
	}
}
