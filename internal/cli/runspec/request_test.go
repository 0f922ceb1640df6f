package runspec

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/pflag"
)

const testID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// fileInfo is a file of a mode.
type fileInfo struct {
	fs.FileInfo
	mode fs.FileMode
}

func (f fileInfo) Mode() fs.FileMode { return f.mode }

// testHost is a machine with fixed answers: two processors, a few files.
func testHost() Host {
	files := map[string]string{
		"/profile.json": `{"defaultAction":"SCMP_ACT_ERRNO"}`, "/bad.json": "{", "/list.json": "[]", "/empty.json": "{}",
		"/env": "FILE=1\nBOTH=file\n", "/names": "HAVE\nGONE\n",
	}
	return Host{
		LookupEnv: func(name string) (string, bool) { return "inherited", name == "HAVE" },
		ReadFile: func(name string, limit int64) ([]byte, error) {
			text, ok := files[name]
			if !ok {
				return nil, &fs.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
			}
			return []byte(text), nil
		},
		Stat: func(name string) (fs.FileInfo, error) {
			switch {
			case strings.HasPrefix(name, "/missing"):
				return nil, &fs.PathError{Op: "stat", Path: name, Err: errors.New("no such file or directory")}
			case strings.HasPrefix(name, "/dev/"):
				return fileInfo{mode: fs.ModeDevice | fs.ModeCharDevice}, nil
			}
			return fileInfo{mode: fs.ModeDir}, nil
		},
		Getwd:      func() (string, error) { return "/work dir", nil },
		Hostname:   func() (string, error) { return "the-host", nil },
		CPUs:       2,
		Cgroups:    func() (cgroup.Features, error) { return cgroup.Features{Swap: true}, nil },
		NewID:      func() workload.ID { return testID },
		Boundaries: []string{"container"},
	}
}

// testFlags returns a flag set bound to o.
func testFlags(o *Options) *pflag.FlagSet {
	f := pflag.NewFlagSet("run", pflag.ContinueOnError)
	f.SetInterspersed(false)
	o.AddFlags(f)
	return f
}

// parse runs a whole command line, image first among the words, to a Spec.
func parse(t *testing.T, line []string, c ImageConfig) (workload.Spec, error) {
	t.Helper()
	var o Options
	f := testFlags(&o)
	if err := f.Parse(line); err != nil {
		return workload.Spec{}, err
	}
	o.EntrypointSet = f.Changed("entrypoint")
	r, err := o.Check(testHost(), f.Args()[1:])
	if err != nil {
		return workload.Spec{}, err
	}
	return r.Spec(testHost(), workload.Image{Reference: "docker.io/library/x:latest", Digest: "sha256:1"}, c)
}

// usual is the spec of `run x prog`.
func usual() workload.Spec {
	pids := int64(4096)
	return workload.Spec{
		ID: testID, Boundary: "container", Network: "bridge", Networks: []workload.Attachment{{Network: "bridge"}}, Hostname: "0123456789ab", StopSignal: "SIGTERM", StopTimeout: 10 * time.Second,
		Image:     workload.Image{Reference: "docker.io/library/x:latest", Digest: "sha256:1"},
		Process:   workload.Process{Args: []string{"prog"}, Cwd: "/", Env: []string{"PATH=" + defaultPath, "HOSTNAME=0123456789ab"}},
		Resources: workload.Resources{Pids: &pids, ShmSize: 64 << 20},
	}
}

func ptr[T any](v T) *T { return &v }

func TestSpec(t *testing.T) {
	image := ImageConfig{
		Entrypoint: []string{"/entry"}, Cmd: []string{"-a"}, Env: []string{"PATH=/bin", "BOTH=image", "GONE=1"}, User: "app:app",
		WorkingDir: "/srv", Volumes: []string{"/data", "/b"}, StopSignal: "3", Labels: map[string]string{"l": "image", "m": "image"},
	}
	imageVolumes := []workload.Mount{{Type: "volume", Target: "/b"}, {Type: "volume", Target: "/data"}}
	for _, tt := range []struct {
		name  string
		line  string // split at spaces
		image ImageConfig
		want  func(*workload.Spec)
	}{
		{"plain", "x prog", ImageConfig{}, func(s *workload.Spec) {}},
		{"flags after the image are the program's", "x prog -it --rm", ImageConfig{}, func(s *workload.Spec) {
			s.Process.Args = []string{"prog", "-it", "--rm"}
		}},
		{"terminal", "-it --rm --name web --init --read-only x prog", ImageConfig{}, func(s *workload.Spec) {
			s.Name, s.Process.Terminal, s.KeepStdin, s.AutoRemove, s.Init, s.ReadOnlyRoot = "web", true, true, true, true, true
			s.Process.Env = append(s.Process.Env, "TERM=xterm")
		}},
		{"the image decides", "x", image, func(s *workload.Spec) {
			s.Process = workload.Process{Args: []string{"/entry", "-a"}, Cwd: "/srv", User: "app:app",
				Env: []string{"PATH=/bin", "HOSTNAME=0123456789ab", "BOTH=image", "GONE=1"}}
			s.StopSignal, s.Labels, s.Mounts = "3", image.Labels, imageVolumes
		}},
		{"the command line decides", "-e BOTH=me -e HAVE -e GONE --env-file /env -w /x/../y -u 5 -l l=me --stop-signal usr1 --stop-timeout 3 x -b", image, func(s *workload.Spec) {
			s.Process = workload.Process{Args: []string{"/entry", "-b"}, Cwd: "/y", User: "5",
				Env: []string{"PATH=/bin", "HOSTNAME=0123456789ab", "BOTH=me", "FILE=1", "HAVE=inherited"}}
			s.StopSignal, s.StopTimeout, s.Labels = "SIGUSR1", 3*time.Second, map[string]string{"l": "me", "m": "image"}
			s.Mounts = imageVolumes
		}},
		{"names in a file take nothing away", "--env-file /names x", ImageConfig{Env: []string{"GONE=1"}, Cmd: []string{"prog"}}, func(s *workload.Spec) {
			s.Process.Env = append(s.Process.Env, "GONE=1", "HAVE=inherited")
		}},
		{"entrypoint drops the image's arguments", "--entrypoint /sh x", ImageConfig{Entrypoint: []string{"/e"}, Cmd: []string{"c"}}, func(s *workload.Spec) {
			s.Process.Args = []string{"/sh"}
		}},
		{"empty entrypoint", "--entrypoint= x prog", ImageConfig{Entrypoint: []string{"/e"}, Cmd: []string{"c"}}, func(s *workload.Spec) {}},
		{"volumes of the image", "--read-only -v /h:/b x prog", ImageConfig{Volumes: []string{"/data/", "/b", "/proc/x", "/", "/sys/fs/cgroup", "/dev"}}, func(s *workload.Spec) {
			s.ReadOnlyRoot = true
			s.Mounts = []workload.Mount{{Type: "bind", Source: "/h", Target: "/b", Recursive: true, CreateSource: true}, {Type: "volume", Target: "/data"}}
		}},
		{"what is below comes after", "-v in:/data/in --tmpfs /data/in/er -v /h:/b x prog", ImageConfig{Volumes: []string{"/data"}}, func(s *workload.Spec) {
			s.Mounts = []workload.Mount{
				{Type: "bind", Source: "/h", Target: "/b", Recursive: true, CreateSource: true}, {Type: "volume", Target: "/data"},
				{Type: "volume", Source: "in", Target: "/data/in"}, {Type: "tmpfs", Target: "/data/in/er", NoExec: true},
			}
		}},
		{"volumes of the image in memory", "--image-volume tmpfs x prog", ImageConfig{Volumes: []string{"/data"}}, func(s *workload.Spec) {
			s.Mounts = []workload.Mount{{Type: "tmpfs", Target: "/data"}}
		}},
		{"volumes of the image in its writable layer", "--image-volume ignore x prog", ImageConfig{Volumes: []string{"/data", "rel"}}, func(s *workload.Spec) {}},
		{"named volume in the place of the image's", "-v db:/data x prog", ImageConfig{Volumes: []string{"/data", "/data/../data"}}, func(s *workload.Spec) {
			s.Mounts = []workload.Mount{{Type: "volume", Source: "db", Target: "/data"}}
		}},
		{"relative working directory of an image", "x prog", ImageConfig{WorkingDir: "../app"}, func(s *workload.Spec) { s.Process.Cwd = "/app" }},
		{"mounts", "-v /a:/b --mount type=tmpfs,dst=/c --tmpfs /d --device /dev/fuse:rw x prog", ImageConfig{}, func(s *workload.Spec) {
			s.Mounts = []workload.Mount{
				{Type: "bind", Source: "/a", Target: "/b", Recursive: true, CreateSource: true}, {Type: "tmpfs", Target: "/c", NoExec: true}, {Type: "tmpfs", Target: "/d", NoExec: true},
			}
			s.Devices = []workload.Device{{Source: "/dev/fuse", Target: "/dev/fuse", Permissions: "rw"}}
		}},
		{"limits", "-m 64m --memory-swap 128m --memory-reservation 32m --cpus 1.5 -c 512 --cpuset-cpus 0-1 --cpuset-mems 0 --pids-limit 10 --blkio-weight 100 --oom-score-adj -5 --shm-size 1m --ulimit core=0 x prog", ImageConfig{}, func(s *workload.Spec) {
			s.Resources = workload.Resources{Memory: ptr(int64(64 << 20)), MemorySwap: ptr(int64(128 << 20)), MemoryReservation: ptr(int64(32 << 20)), CPUs: 1.5, CPUWeight: 512,
				CpusetCPUs: "0-1", CpusetMems: "0", Pids: ptr(int64(10)), IOWeight: 100, OOMScoreAdj: ptr(-5), ShmSize: 1 << 20}
			s.Process.Rlimits = []workload.Rlimit{{Type: "RLIMIT_CORE"}}
		}},
		{"no limits", "-m 0 --memory-swap 0 --pids-limit 0 x prog", ImageConfig{}, func(s *workload.Spec) { s.Resources.Pids = ptr(int64(-1)) }},
		{"swap as much as memory", "-m 64m x prog", ImageConfig{}, func(s *workload.Spec) {
			s.Resources.Memory, s.Resources.MemorySwap = ptr(int64(64<<20)), ptr(int64(128<<20))
		}},
		{"unlimited swap", "-m 64m --memory-swap=-1 x prog", ImageConfig{}, func(s *workload.Spec) {
			s.Resources.Memory, s.Resources.MemorySwap = ptr(int64(64<<20)), ptr(int64(-1))
		}},
		{"disk rates", "--device-read-bps /dev/sda:1m --device-write-iops /dev/sda:7 --device-write-bps /dev/sdb:2k --device-read-iops /dev/sdb:9 x prog", ImageConfig{}, func(s *workload.Spec) {
			s.Resources.IOLimits = []workload.IOLimit{{Device: "/dev/sda", ReadBPS: 1 << 20, WriteIOPS: 7}, {Device: "/dev/sdb", WriteBPS: 2 << 10, ReadIOPS: 9}}
		}},
		{"security", "--cap-drop all --cap-add net_raw,kill --security-opt seccomp=/profile.json --security-opt apparmor=mine --security-opt no-new-privileges=false --security-opt unmask=/proc/acpi:/sys/firmware --seccomp-report --sysctl net.core.somaxconn=5 --sysctl kernel/shmmax=1 x prog", ImageConfig{}, func(s *workload.Spec) {
			s.Security = workload.Security{CapDrop: []string{"ALL"}, CapAdd: []string{"CAP_NET_RAW", "CAP_KILL"}, Seccomp: `{"defaultAction":"SCMP_ACT_ERRNO"}`, AppArmor: "mine", NewPrivileges: true,
				Unmask: []string{"/proc/acpi", "/sys/firmware"}, SeccompReport: true, Sysctls: map[string]string{"net.core.somaxconn": "5", "kernel.shmmax": "1"}}
		}},
		{"older spelling", "--security-opt seccomp:unconfined --security-opt no-new-privileges --security-opt systempaths=unconfined --security-opt apparmor:unconfined x prog", ImageConfig{}, func(s *workload.Spec) {
			s.Security = workload.Security{Seccomp: "unconfined", AppArmor: "unconfined", Unmask: []string{"ALL"}}
		}},
		{"host namespaces", "--userns host --pid host --ipc host --uts host --network host x prog", ImageConfig{}, func(s *workload.Spec) {
			s.Namespaces = workload.Namespaces{HostUser: true, HostPID: true, HostIPC: true, HostUTS: true}
			s.Network, s.Networks, s.Hostname, s.Process.Env[1] = "host", nil, "", "HOSTNAME=the-host"
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parse(t, strings.Fields(tt.line), tt.image)
			if err != nil {
				t.Fatal(err)
			}
			want := usual()
			tt.want(&want)
			if diff := cmp.Diff(want, got, addrs); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestBadFlags(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"--boundary vm x p", "unknown boundary"}, {"--boundary gvisor x p", "unknown boundary"}, {"--boundary jail x p", "unknown boundary"},
		{"--name a/b x p", "not a valid name"}, {"--pull sometimes x p", "unknown policy"}, {"--network user --ip 10.0.0.5 x p", "no meaning"},
		{"--platform a/b/c/d x p", "not a platform"}, {"--hostname -x x p", "not a host name"}, {"--hostname a --uts host x p", "rename the host"},
		{"-e =1 x p", "name is missing"}, {"--env-file /missing x p", "cannot be read"}, {"-u : x p", "not a user"}, {"-w rel x p", "absolute"},
		{"-l =x x p", "not a label"}, {"--stop-signal NOPE x p", "unknown signal"}, {"--stop-timeout -2 x p", "out of range"},
		{"--ulimit foo=1 x p", "unknown limit"},
		{"-v /a:/b -v /c:/b/ x p", "already mounted at /b"}, {"-v /a:/b --tmpfs /b x p", "already mounted"}, {"--mount type=bind,src=/missing,dst=/b x p", "does not exist"},
		{"--device /missing x p", "no such file"}, {"--device /a x p", "not a device"},
		{"-m -1 x p", "negative"}, {"-m 1m x p", "less than the 6 MiB"}, {"-m 99999999p x p", "larger than any machine"}, {"-m lots x p", "not a size"},
		{"--memory-swap 1g x p", "no --memory limit"}, {"-m 1g --memory-swap 1m x p", "less than --memory"}, {"-m 64m --memory-reservation 65m x p", "more than the limit"},
		{"--memory-swap=-2 x p", "negative"}, {"--memory-reservation x x p", "not a size"},
		{"--cpus 3 x p", "this machine has 2"}, {"--cpus -1 x p", "not a number of processors"}, {"--cpus 0.001 x p", "not a number of processors"}, {"--cpus nan x p", "not a number"}, {"--cpus inf x p", "not a number"},
		{"-c 1 x p", "out of range"}, {"-c -5 x p", "out of range"}, {"-c 262145 x p", "out of range"},
		{"--cpuset-cpus 1-0 x p", "not a list"}, {"--cpuset-cpus a x p", "not a list"}, {"--cpuset-mems 0, x p", "not a list"}, {"--cpuset-cpus 0-99999 x p", "not a list"},
		{"--pids-limit -2 x p", "negative"}, {"--pids-limit 4194305 x p", "more than the kernel"}, {"--pids-limit 1 x p", "two processes"}, {"--init --pids-limit 2 x p", "several threads"},
		{"--blkio-weight 9 x p", "out of range"}, {"--blkio-weight 1001 x p", "out of range"}, {"--device-read-bps sda:1 x p", "not a device and a rate"},
		{"--device-read-bps /dev/sda x p", "not a device and a rate"}, {"--device-write-bps /dev/sda:x x p", "not a rate"}, {"--device-read-iops /dev/sda:1m x p", "not a rate"}, {"--device-write-iops /dev/sda:0 x p", "stop everything"},
		{"--oom-score-adj 1001 x p", "out of range"}, {"--oom-score-adj x x p", "out of range"}, {"--shm-size 1 x p", "less than a page"}, {"--shm-size -1 x p", "negative"},
		{"--privileged x p", "virtual machine"}, {"--cap-add NOPE x p", "unknown capability"}, {"--cap-add KILL --cap-drop KILL x p", "also dropped"},
		{"--security-opt seccomp=/missing.json x p", "cannot be read"}, {"--security-opt seccomp=/bad.json x p", "not a JSON object"}, {"--security-opt seccomp=/list.json x p", "not a JSON object"}, {"--security-opt seccomp=/empty.json x p", "defaultAction"},
		{"--security-opt seccomp= x p", "value is missing"}, {"--security-opt seccomp x p", "value is missing"}, {"--security-opt no-new-privileges=x x p", "neither true nor false"}, {"--security-opt label=disable x p", "not available"},
		{"--security-opt foo=bar x p", "unknown option"}, {"--security-opt unmask=/etc x p", "not a path below"}, {"--security-opt unmask=/proc/../etc x p", "not a plain path"}, {"--security-opt systempaths=x x p", "unknown value"},
		{"--security-opt seccomp=unconfined --seccomp-report x p", "seccomp is unconfined"},
		{"--sysctl vm.swappiness=1 x p", "whole machine"}, {"--sysctl kernel.panic=1 x p", "whole machine"}, {"--sysctl net.x x p", "not a parameter"}, {"--sysctl net../../kernel.x=1 x p", "not the name"}, {"--sysctl net.a=1 --network host x p", "change the host"},
		{"--sysctl kernel.shmmax=1 --ipc host x p", "change the host"}, {"--sysctl kernel.domainname=a --uts host x p", "change the host"},
		{"--userns auto x p", "not available"}, {"--pid container:x x p", "not available"}, {"--ipc shareable x p", "not available"}, {"--uts x x p", "not available"},
		{"x", "names no program"},
	} {
		t.Run(tt.line, func(t *testing.T) {
			_, err := parse(t, strings.Fields(tt.line), ImageConfig{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want %q", err, tt.want)
			}
			if advice.Fix(err) == "" {
				t.Errorf("%v: no fix", err)
			}
			if s := err.Error(); strings.ContainsAny(s, "\n") || strings.HasSuffix(s, ".") {
				t.Errorf("not one plain sentence: %q", s)
			}
		})
	}
}

func TestBadImageConfig(t *testing.T) {
	for _, tt := range []struct {
		name  string
		image ImageConfig
		want  string
	}{
		{"variable without a name", ImageConfig{Env: []string{"=x"}}, "variable"},
		{"variable without a value", ImageConfig{Env: []string{"X"}}, "variable"},
		{"zero byte in a variable", ImageConfig{Env: []string{"X=\x00"}}, "variable"},
		{"user", ImageConfig{User: "a:b:c"}, "user"},
		{"stop signal", ImageConfig{StopSignal: "SIGNOPE"}, "stop signal"},
		{"zero byte in the directory", ImageConfig{WorkingDir: "/\x00"}, "working directory"},
		{"zero byte in an argument", ImageConfig{Entrypoint: []string{"/x\x00"}}, "argument"},
		{"empty program", ImageConfig{Entrypoint: []string{""}}, "empty string"},
		{"volume", ImageConfig{Volumes: []string{"rel"}}, "volume"},
		{"many volumes", ImageConfig{Volumes: make([]string, 129)}, "129 volumes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parse(t, []string{"--read-only", "x", "p"}, tt.image)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestExecProcess(t *testing.T) {
	first := workload.Process{Args: []string{"a"}, Env: []string{"PATH=/bin", "HOME=/root", "X=1"}, Cwd: "/srv", User: "app", Groups: []uint32{5}}
	for _, tt := range []struct {
		name string
		o    ExecOptions
		want workload.Process
		err  string
	}{
		{"as the first", ExecOptions{}, workload.Process{Env: first.Env, Cwd: "/srv", User: "app", Groups: []uint32{5}}, ""},
		{"changed", ExecOptions{TTY: true, Env: []string{"X=2", "HAVE"}, Workdir: "/y/", User: "0"},
			workload.Process{Env: []string{"PATH=/bin", "X=2", "TERM=xterm", "HAVE=inherited"}, Cwd: "/y", User: "0", Groups: []uint32{5}, Terminal: true}, ""},
		{"bad directory", ExecOptions{Workdir: "y"}, workload.Process{}, "absolute"},
		{"bad user", ExecOptions{User: ":"}, workload.Process{}, "not a user"},
		{"bad variable", ExecOptions{Env: []string{"="}}, workload.Process{}, "name is missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.o.Process(testHost(), first, []string{"ls"})
			tt.want.Args = []string{"ls"}
			checkParse(t, got, err, tt.want, tt.err)
		})
	}
	if first.Env[1] != "HOME=/root" {
		t.Error("the first process's environment was changed")
	}
}

func TestReadFileEndsAtItsLimit(t *testing.T) {
	name := t.TempDir() + "/f"
	if err := os.WriteFile(name, bytes.Repeat([]byte("x"), 10), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := readFile(name, 10); len(b) != 10 || err != nil {
		t.Errorf("readFile = %d bytes, %v", len(b), err)
	}
	if _, err := readFile(name, 9); err == nil {
		t.Error("a longer file was read")
	}
	if _, err := readFile("/dev/zero", 100); err == nil {
		t.Error("an endless file was read")
	}
}

func TestStopTimeout(t *testing.T) {
	if d, err := StopTimeout("--time", -1); d >= 0 || err != nil {
		t.Errorf("StopTimeout(-1) = %v, %v", d, err)
	}
	if _, err := StopTimeout("--time", math.MaxInt32); err == nil {
		t.Error("68 years are accepted")
	}
}

func ExampleOptions_Check() {
	var o Options
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	o.AddFlags(fs)
	_ = fs.Parse([]string{"--memory", "1m"})
	_, err := o.Check(LocalHost("container"), nil)
	fmt.Println(err)
	fmt.Println(advice.Fix(err))
	// Output:
	// --memory "1m": less than the 6 MiB that starting a process needs
	// give at least 6m
}

func TestVolumesFrom(t *testing.T) {
	r := &Request{}
	r.spec.Mounts = []workload.Mount{{Type: "bind", Source: "/mine", Target: "/taken"}}
	r.AddFrom(From{Workload: "a", ReadOnly: true}, []workload.Mount{
		{Type: "volume", Source: "v", Target: "/v"}, {Type: "volume", Source: "w", Target: "/taken"}, {Type: "tmpfs", Target: "/t"},
	})
	r.AddFrom(From{Workload: "b"}, []workload.Mount{{Type: "volume", Source: "x", Target: "/v"}, {Type: "bind", Source: "/h", Target: "/h", ReadOnly: true}})
	want := []workload.Mount{
		{Type: "bind", Source: "/mine", Target: "/taken"}, {Type: "volume", Source: "v", Target: "/v", ReadOnly: true},
		{Type: "bind", Source: "/h", Target: "/h", ReadOnly: true},
	}
	if diff := cmp.Diff(want, r.spec.Mounts); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for in, want := range map[string]From{"a": {Workload: "a"}, "a:rw": {Workload: "a"}, "a:ro": {Workload: "a", ReadOnly: true}, "": {}, ":ro": {}, "a:x": {}} {
		got, err := parseFrom(in)
		if got != want || (err != nil) != (want == From{}) {
			t.Errorf("%q: got %+v, %v", in, got, err)
		}
	}
}

// TestRuntime follows from --runtime or --boundary to the program and the boundary.
func TestRuntime(t *testing.T) {
	host := testHost()
	host.Boundaries = []string{"container", "gvisor", "vm", "runtime"}
	host.Runsc = func() (workload.Runtime, error) { return workload.Runtime{Name: "runsc", Path: "/bin/runsc"}, nil }
	host.Runtime = func(name string) (workload.Runtime, string, error) {
		switch name {
		case "mine":
			return workload.Runtime{Name: name, Path: "/opt/runsc"}, "gvisor", nil
		case "crun":
			return workload.Runtime{Name: name, Path: "/bin/crun"}, "runtime", nil
		}
		return workload.Runtime{}, "", errors.New("no such runtime")
	}
	for _, tt := range []struct{ flags, boundary, path, fails string }{
		{"", "container", "", ""},
		{"--boundary gvisor", "gvisor", "/bin/runsc", ""},
		{"--runtime mine", "gvisor", "/opt/runsc", ""},
		{"--runtime mine --boundary gvisor", "gvisor", "/opt/runsc", ""},
		{"--runtime crun", "runtime", "/bin/crun", ""},
		{"--runtime crun --boundary runtime", "runtime", "/bin/crun", ""},
		{"--runtime crun --boundary container", "", "", "does not make the boundary container"},
		{"--runtime crun --boundary gvisor", "", "", "does not make the boundary gvisor"},
		{"--runtime other", "", "", "no such runtime"},
		{"--boundary runtime", "", "", "needs to know which one"},
		{"--boundary gvisor --pid host", "", "", "--pid host is not available behind the boundary gvisor"},
		{"--boundary gvisor --device /dev/null", "", "", "--device is not available"},
		{"--boundary gvisor --seccomp-report", "", "", "--seccomp-report is not available"},
		{"--boundary gvisor --security-opt apparmor=mine", "", "", "apparmor is not available"},
		{"--runtime crun --tenant acme", "", "", "--tenant has no meaning behind the boundary runtime"},
	} {
		var o Options
		if err := testFlags(&o).Parse(strings.Fields(tt.flags)); err != nil {
			t.Fatal(err)
		}
		r, err := o.Check(host, nil)
		if tt.fails != "" {
			if err == nil || !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("%s: got %v, want %q", tt.flags, err, tt.fails)
			}
			continue
		}
		if err != nil || r.spec.Boundary != tt.boundary || r.spec.Runtime.Path != tt.path {
			t.Errorf("%s: got %+v, %v", tt.flags, r, err)
		}
	}
}
