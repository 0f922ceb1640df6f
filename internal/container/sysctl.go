package container

import (
	"fmt"
	"sort"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

type sysctl struct{ key, path, value string }

// sortedSysctls turns names into paths: dots and slashes change places, as
// sysctl(8) does.
func sortedSysctls(m map[string]string) []sysctl {
	out := make([]sysctl, 0, len(m))
	for k, v := range m {
		out = append(out, sysctl{k, "/proc/sys/" + sysctlPath(k), v})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].key < out[j].key })
	return out
}

func sysctlPath(key string) string {
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '/' {
		return key // given with slashes: dots are part of a name
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, key)
}

// checkSysctls refuses parameters that do not belong to a namespace of the
// container's own: written, they would change the host.
func checkSysctls(m map[string]string, ns namespaces) error {
	for _, kv := range sortedSysctls(m) {
		name := strings.ReplaceAll(sysctlPath(kv.key), "/", ".")
		if strings.Contains("/"+sysctlPath(kv.key)+"/", "/../") || strings.Contains(kv.path, "//") {
			return fmt.Errorf("sysctl %q: not the name of a kernel parameter", kv.key)
		}
		need, ok := sysctlNamespace(name)
		if !ok {
			return fmt.Errorf("sysctl %q is not in a namespace of the container's own: it would change the host", kv.key)
		}
		if !ns.own(need) {
			return fmt.Errorf("sysctl %q needs a %s namespace of the container's own", kv.key, need)
		}
		if need == specs.UTSNamespace && name == "kernel.hostname" {
			return fmt.Errorf("sysctl %q: set the hostname instead", kv.key)
		}
	}
	return nil
}

// sysctlNamespace says which namespace a parameter belongs to.
func sysctlNamespace(name string) (specs.LinuxNamespaceType, bool) {
	switch name {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
		"kernel.shm_rmid_forced":
		return specs.IPCNamespace, true
	case "kernel.domainname", "kernel.hostname":
		return specs.UTSNamespace, true
	}
	if strings.HasPrefix(name, "fs.mqueue.") {
		return specs.IPCNamespace, true
	}
	if strings.HasPrefix(name, "net.") {
		return specs.NetworkNamespace, true
	}
	return "", false
}
