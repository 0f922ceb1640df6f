package runspec

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// maxName is the longest name of a workload: it becomes part of file names and
// of socket paths, which end at 107 bytes (unix(7)).
const maxName = 63

// nameFix is what to do about a name that is none.
var nameFix = fmt.Sprintf("use 2 to %d letters, digits, '_', '.' or '-', the first a letter or digit", maxName)

// maxID is the largest user or group ID: the kernel keeps 2^32-1 for "no
// change" (setreuid(2)), and OCI runtimes end at 2^31-1.
const maxID = 1<<31 - 1

// CheckName reports whether name may name a workload: it matches
// [a-zA-Z0-9][a-zA-Z0-9_.-]+ and has at most 63 characters. A name of 64
// hexadecimal digits, which would look like an ID, is thereby excluded.
func CheckName(name string) error {
	ok := len(name) >= 2 && len(name) <= maxName
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = alnum || i > 0 && (c == '_' || c == '.' || c == '-')
	}
	if !ok {
		return bad("--name", name, "not a valid name", nameFix)
	}
	return nil
}

// CheckUser checks the syntax of USER[:GROUP], each a name or a number; whether
// they exist is known only with the image's root file system.
func CheckUser(flag, s string) error {
	user, group, hasGroup := strings.Cut(s, ":")
	const fix = "write USER, UID, USER:GROUP or UID:GID, such as 1000:1000"
	if user == "" || hasGroup && group == "" || strings.Contains(group, ":") {
		return bad(flag, s, "not a user", fix)
	}
	for _, part := range []string{user, group} {
		if strings.ContainsFunc(part, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '/' || r > 0x7e && r < 0xa0 }) {
			return bad(flag, s, "a user's or group's name cannot hold blanks, slashes or control characters", fix)
		}
		if strings.Trim(part, "-0123456789") == "" && part != "" {
			if n, err := strconv.ParseInt(part, 10, 64); err != nil || n < 0 || n > maxID {
				return bad(flag, s, "the ID is out of range", fmt.Sprintf("IDs are 0 to %d", maxID))
			}
		}
	}
	return nil
}

// parseLabel reads KEY[=VALUE].
func parseLabel(s string) (key, value string, err error) {
	key, value, _ = strings.Cut(s, "=")
	if strings.TrimSpace(key) != key || key == "" || strings.ContainsRune(s, 0) {
		return "", "", bad("--label", s, "not a label", "write KEY=VALUE or KEY; the key is not empty and has no blanks around it")
	}
	return key, value, nil
}

// labelFiles reads the labels of every --label-file, one a line. Empty lines and
// those that begin with # are skipped.
func labelFiles(host Host, files []string) (labels []string, err error) {
	for _, file := range files {
		text, err := host.ReadFile(file, envFileLimit)
		if err != nil {
			return nil, advice.Wrap(err, fmt.Sprintf("--label-file %q cannot be read: %s", file, reason(err)), "give a text file with one KEY=VALUE a line")
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				labels = append(labels, line)
			}
		}
	}
	return labels, nil
}

// parseGroups reads every --group-add. Names would have to be looked up in a root
// file system that does not exist yet.
func parseGroups(all []string) (groups []uint32, err error) {
	for _, s := range all {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil || n > maxID {
			return nil, bad("--group-add", s, "not the number of a group", fmt.Sprintf("give a number from 0 to %d; the image's /etc/group has those of names", maxID))
		}
		groups = append(groups, uint32(n))
	}
	return groups, nil
}

// ParseLabels reads every --label; a later one wins.
func ParseLabels(all []string) (map[string]string, error) {
	if len(all) == 0 {
		return nil, nil
	}
	labels := make(map[string]string, len(all))
	for _, s := range all {
		k, v, err := parseLabel(s)
		if err != nil {
			return nil, err
		}
		labels[k] = v
	}
	return labels, nil
}

// checkHostname checks a name for sethostname(2): at most 64 bytes, of letters,
// digits, dots and hyphens in the right places (RFC 1123).
func checkHostname(s string) error {
	if !isHostname(s, 64) {
		return bad("--hostname", s, "not a host name", "use at most 64 letters, digits, hyphens and dots, with at most 63 between dots, such as web-1.example")
	}
	return nil
}

// isHostname reports whether s is a name of at most longest bytes by RFC 1123,
// the underscore allowed, as people use it.
func isHostname(s string, longest int) bool {
	ok := len(s) <= longest
	for label := range strings.SplitSeq(s, ".") {
		ok = ok && label != "" && len(label) <= 63 && label[0] != '-' && label[len(label)-1] != '-'
		for _, c := range label {
			ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_')
		}
	}
	return ok
}

// parseStopSignal returns a signal given by name or number as a Spec has it: the
// full name, or the number.
func parseStopSignal(flag, s string) (string, error) {
	if _, err := workload.ParseSignal(s); err != nil {
		return "", advice.Wrap(err, fmt.Sprintf("%s %q: unknown signal", flag, s), "give a name or number as in signal(7), such as SIGTERM or 15")
	}
	if _, err := strconv.Atoi(s); err == nil {
		return s, nil
	}
	return "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG"), nil
}

// parseDevice reads HOST-PATH[:TARGET][:PERMISSIONS] and checks that the host
// path is a device.
func parseDevice(host Host, s string) (workload.Device, error) {
	const flag, fix = "--device", "write HOST-DEVICE[:TARGET][:PERMISSIONS], such as --device /dev/fuse or --device /dev/sdb:/dev/disk:r"
	parts := strings.Split(s, ":")
	d := workload.Device{Source: parts[0], Target: parts[0], Permissions: "rwm"}
	switch {
	case len(parts) == 3:
		d.Target, d.Permissions = parts[1], parts[2]
	case len(parts) == 2 && strings.HasPrefix(parts[1], "/"):
		d.Target = parts[1]
	case len(parts) == 2:
		d.Permissions = parts[1]
	case len(parts) > 3:
		return d, bad(flag, s, "too many colons", fix)
	}
	if !strings.HasPrefix(d.Source, "/") || strings.ContainsRune(s, 0) {
		return d, bad(flag, s, "the host device is not an absolute path", fix)
	}
	if d.Permissions == "" || strings.Trim(d.Permissions, "rwm") != "" || len(d.Permissions) > 3 {
		return d, bad(flag, s, "unknown permissions", "permissions are letters of rwm: read, write, mknod")
	}
	target, err := mountTarget(flag, s, d.Target, fix)
	if err != nil {
		return d, err
	}
	d.Target = target
	info, err := host.Stat(d.Source)
	if err != nil {
		return d, advice.Wrap(err, fmt.Sprintf("%s %q: %s cannot be used: %s", flag, s, d.Source, reason(err)), "look for the device below /dev; the module of its driver may have to be loaded")
	}
	if info.Mode()&modeDevice == 0 {
		return d, bad(flag, s, d.Source+" is not a device", "name a block or character device; for a file or directory use --mount")
	}
	return d, nil
}
