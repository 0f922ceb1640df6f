package runspec

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

const modeDevice = fs.ModeDevice

// defaultPath is the search path where neither image nor flags set one.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// ImageConfig is what an image says about how it wants to be run (image-spec,
// config.md). It is hostile input.
type ImageConfig struct {
	Entrypoint, Cmd, Env []string
	User, WorkingDir     string
	Volumes              []string // absolute paths inside
	ExposedPorts         []string // such as "80/tcp"
	StopSignal           string
	Labels               map[string]string
	Health               workload.Health
	Shell                []string // of shell forms, empty for /bin/sh -c
}

// Request is a checked command line: everything but the image.
type Request struct {
	Pull     string // "always", "missing" or "never"
	Platform string // "" for the host's
	// From are the workloads of --volumes-from. Whoever knows workloads calls
	// AddFrom for each, in their order, before Spec.
	From []From

	spec          workload.Spec // without image, arguments and environment
	env           []assignment
	args          []string
	entrypoint    []string
	entrypointSet bool
	imageVolume   string   // see imageVolumes
	exposed       []string // by --expose
	publishAll    bool
}

// Check validates the flags and returns them as a Request. args are the words
// after the image's name.
func (o *Options) Check(host Host, args []string) (*Request, error) {
	runtime, err := o.chooseBoundary(host)
	if err != nil {
		return nil, err
	}
	r := &Request{Pull: o.Pull, Platform: o.Platform, args: args, entrypointSet: o.EntrypointSet}
	if o.Entrypoint != "" {
		r.entrypoint = []string{o.Entrypoint}
	}
	r.spec = workload.Spec{
		Boundary: o.Boundary, Name: o.Name, ReadOnlyRoot: o.ReadOnly, Init: o.Init,
		AutoRemove: o.Remove, KeepStdin: o.Interactive, Runtime: runtime,
	}
	r.spec.Process.Terminal = o.TTY
	for _, step := range []func(*Request, Host) error{
		o.words, o.identity, o.network, o.process, o.mounts, o.isolation, o.limits, o.machine, o.lifecycle,
	} {
		if err := step(r, host); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// words checks the flags that are one of a few words.
func (o *Options) words(r *Request, _ Host) error {
	switch o.Pull {
	case "always", "missing", "never":
	default:
		return bad("--pull", o.Pull, "unknown policy", "give always, missing or never")
	}
	if strings.ContainsFunc(o.Platform, func(c rune) bool { return c <= ' ' || c > '~' }) || strings.Count(o.Platform, "/") > 2 {
		return bad("--platform", o.Platform, "not a platform", "write OS/ARCHITECTURE[/VARIANT], such as linux/arm64")
	}
	return nil
}

// identity checks what names the workload.
func (o *Options) identity(r *Request, host Host) (err error) {
	r.spec.ID = host.NewID()
	if o.Name != "" {
		if err := CheckName(o.Name); err != nil {
			return err
		}
	}
	labels, err := labelFiles(host, o.LabelFiles)
	if err != nil {
		return err
	}
	if r.spec.Labels, err = ParseLabels(append(labels, o.Labels...)); err != nil {
		return err
	}
	r.spec.Hostname = o.Hostname
	switch {
	case o.Hostname == "" && o.Security.UTS != "host":
		r.spec.Hostname = r.spec.ID.Short()
	case o.Hostname == "":
	case o.Security.UTS == "host":
		return bad("--hostname", o.Hostname, "with --uts host it would rename the host", "leave out one of the two")
	default:
		return checkHostname(o.Hostname)
	}
	return nil
}

// process checks what the first process gets.
func (o *Options) process(r *Request, host Host) (err error) {
	if r.env, err = environment(host, o.EnvFiles, o.Env); err != nil {
		return err
	}
	if o.User != "" {
		if err := CheckUser("--user", o.User); err != nil {
			return err
		}
		r.spec.Process.User = o.User
	}
	if r.spec.Process.Groups, err = parseGroups(o.GroupAdd); err != nil {
		return err
	}
	if o.Workdir != "" {
		if r.spec.Process.Cwd, err = cleanWorkdir("--workdir", o.Workdir); err != nil {
			return err
		}
	}
	if o.StopSignal != "" {
		if r.spec.StopSignal, err = parseStopSignal("--stop-signal", o.StopSignal); err != nil {
			return err
		}
	}
	if r.spec.StopTimeout, err = StopTimeout("--stop-timeout", o.StopTimeout); err != nil {
		return err
	}
	if given := o.stopTimeout != nil && o.stopTimeout.Changed; o.VM.System && !given {
		r.spec.StopTimeout = systemStopTimeout
	}
	r.spec.Process.Rlimits, err = parseUlimits(o.Ulimits)
	return err
}

// StopTimeout turns whole seconds into a duration; -1 waits without end, which
// is a negative duration.
func StopTimeout(flag string, seconds int) (time.Duration, error) {
	const day = 24 * 60 * 60
	if seconds < -1 || seconds > 365*day {
		return 0, bad(flag, fmt.Sprint(seconds), "out of range", "give seconds, at most a year, or -1 to wait without end")
	}
	return time.Duration(seconds) * time.Second, nil
}

// cleanWorkdir checks a working directory.
func cleanWorkdir(flag, dir string) (string, error) {
	if !path.IsAbs(dir) || strings.ContainsRune(dir, 0) {
		return "", bad(flag, dir, "not an absolute path", "write the path from the root of the workload, such as /srv")
	}
	return path.Clean(dir), nil
}

// mounts checks -v, --mount, --tmpfs and --device together.
func (o *Options) mounts(r *Request, host Host) error {
	for _, s := range o.Volumes {
		m, err := ParseVolume(host, s)
		if err == nil {
			err = r.addMount("--volume", s, m)
		}
		if err != nil {
			return err
		}
	}
	for _, s := range o.Mounts {
		m, err := ParseMount(host, s)
		if err == nil {
			err = r.addMount("--mount", s, m)
		}
		if err != nil {
			return err
		}
	}
	for _, s := range o.Tmpfs {
		m, err := ParseTmpfs(s)
		if err == nil {
			err = r.addMount("--tmpfs", s, m)
		}
		if err != nil {
			return err
		}
	}
	if !slices.Contains(imageVolumes, o.ImageVolume) {
		return bad("--image-volume", o.ImageVolume, "unknown kind", "it is anonymous, tmpfs or ignore")
	}
	r.imageVolume = o.ImageVolume
	for _, s := range o.VolumesFrom {
		f, err := parseFrom(s)
		if err != nil {
			return err
		}
		r.From = append(r.From, f)
	}
	for _, s := range o.Devices {
		d, err := parseDevice(host, s)
		if err != nil {
			return err
		}
		r.spec.Devices = append(r.spec.Devices, d)
	}
	return nil
}

// addMount adds m unless its target is taken.
func (r *Request) addMount(flag, s string, m workload.Mount) error {
	if r.mounted(m.Target) {
		return bad(flag, s, fmt.Sprintf("something else is already mounted at %s", m.Target), "give each target once")
	}
	r.spec.Mounts = append(r.spec.Mounts, m)
	return nil
}

// From is one --volumes-from.
type From struct {
	Workload string // its name or ID
	ReadOnly bool
}

// parseFrom reads WORKLOAD[:ro|:rw].
func parseFrom(s string) (From, error) {
	const fix = "write WORKLOAD[:ro|:rw], such as --volumes-from db:ro"
	name, mode, _ := strings.Cut(s, ":")
	switch {
	case name == "":
		return From{}, bad("--volumes-from", s, "the workload is missing", fix)
	case mode != "" && mode != "ro" && mode != "rw" && mode != "z" && mode != "Z":
		return From{}, bad("--volumes-from", s, fmt.Sprintf("unknown mode %q", mode), fix)
	}
	return From{Workload: name, ReadOnly: mode == "ro"}, nil
}

// AddFrom adds the volumes and host directories of another workload, but for
// those whose target is taken. What is read-only there stays so.
func (r *Request) AddFrom(f From, mounts []workload.Mount) {
	for _, m := range mounts {
		if m.Type == "tmpfs" || r.mounted(m.Target) {
			continue
		}
		m.ReadOnly = m.ReadOnly || f.ReadOnly
		r.spec.Mounts = append(r.spec.Mounts, m)
	}
}

// mounted reports whether a mount has this target.
func (r *Request) mounted(target string) bool {
	return slices.ContainsFunc(r.spec.Mounts, func(m workload.Mount) bool { return m.Target == target })
}

// isolation checks namespaces, capabilities and filters.
func (o *Options) isolation(r *Request, host Host) (err error) {
	if r.spec.Security, err = o.Security.security(host); err != nil {
		return err
	}
	if r.spec.Namespaces, err = o.Security.namespaces(); err != nil {
		return err
	}
	for name := range r.spec.Security.Sysctls {
		if strings.HasPrefix(name, "net.") && o.Network.host() {
			return bad("--sysctl", name, "with --network host it would change the host", "leave out one of the two")
		}
	}
	return nil
}

// limits checks the limits, and those against each other that span groups.
func (o *Options) limits(r *Request, host Host) (err error) {
	if r.spec.Resources, err = o.Resources.resources(host); err != nil {
		return err
	}
	if err := boundSwap(&r.spec.Resources, o.Boundary, host); err != nil {
		return err
	}
	if n := *r.spec.Resources.Pids; o.Init && n > 0 && n < minInitPids {
		return bad("--pids-limit", strconv.FormatInt(n, 10), "the first process of --init has several threads", fmt.Sprintf("give at least %d", minInitPids))
	}
	return nil
}

// Spec adds an image: reference as normalized, digest of its manifest, its
// config. What the image says gives way to what the command line says.
func (r *Request) Spec(host Host, img workload.Image, c ImageConfig) (workload.Spec, error) {
	s := r.spec
	s.Image = img
	s.Labels = mergeLabels(c.Labels, s.Labels)
	s.Mounts = slices.Clone(s.Mounts)
	for _, fill := range []func(*workload.Spec, Host, ImageConfig) error{
		r.fillArgs, r.fillEnv, r.fillPlace, r.fillVolumes, r.sortMounts, r.fillPorts, r.fillHealth,
	} {
		if err := fill(&s, host, c); err != nil {
			return workload.Spec{}, err
		}
	}
	return s, nil
}

// fillArgs puts entrypoint and arguments together as Docker does: an entrypoint
// on the command line also drops the image's default arguments.
func (r *Request) fillArgs(s *workload.Spec, _ Host, c ImageConfig) error {
	entry, cmd := c.Entrypoint, c.Cmd
	if r.entrypointSet {
		entry, cmd = r.entrypoint, nil
	}
	if len(r.args) > 0 {
		cmd = r.args
	}
	s.Process.Args = slices.Concat(entry, cmd)
	if s.VM.System {
		if err := r.fillInit(s); err != nil {
			return err
		}
	}
	if len(s.Process.Args) == 0 {
		return advice.New(fmt.Sprintf("image %s names no program to run", s.Image.Reference),
			"write one after the image's name, such as: bulkhead run IMAGE /bin/sh")
	}
	if s.Process.Args[0] == "" {
		return advice.New("the program to run is an empty string", "write its name after the image's name, or with --entrypoint")
	}
	for _, a := range s.Process.Args {
		if strings.ContainsRune(a, 0) {
			return badImage(s, "an argument holds a zero byte")
		}
	}
	return checkText("argument", s.Process.Args)
}

// checkText refuses what the JSON of a spec cannot hold: it would be replaced,
// without a word, by other bytes.
func checkText(what string, words []string) error {
	for _, s := range words {
		if !utf8.ValidString(s) {
			return advice.New(fmt.Sprintf("the %s %q is not UTF-8 text", what, s), "pass such bytes through standard input or a mounted file")
		}
	}
	return nil
}

// fillEnv completes the environment: defaults, then the image's, then the
// command line's. HOME depends on the user database inside and is set where
// that is read.
func (r *Request) fillEnv(s *workload.Spec, host Host, c ImageConfig) error {
	name := s.Hostname
	if s.Namespaces.HostUTS {
		var err error
		if name, err = host.Hostname(); err != nil {
			return fmt.Errorf("find the host's name: %w", err)
		}
	}
	base := []string{"PATH=" + defaultPath, "HOSTNAME=" + name}
	if s.Process.Terminal {
		base = append(base, "TERM=xterm")
	}
	var changes []assignment
	for _, e := range c.Env {
		name, value, ok := strings.Cut(e, "=")
		if !ok || name == "" || strings.ContainsRune(e, 0) {
			return badImage(s, fmt.Sprintf("the variable %q is not NAME=VALUE", name))
		}
		changes = append(changes, assignment{name: name, value: value})
	}
	s.Process.Env = mergeEnv(base, append(changes, r.env...))
	return checkText("variable", s.Process.Env)
}

// fillPlace takes user, working directory and stop signal of the image where
// the command line is silent.
func (r *Request) fillPlace(s *workload.Spec, _ Host, c ImageConfig) (err error) {
	if s.Process.User == "" && c.User != "" {
		if err := CheckUser("the image's user", c.User); err != nil {
			return badImage(s, err.Error())
		}
		s.Process.User = c.User
	}
	if s.Process.Cwd == "" {
		if strings.ContainsRune(c.WorkingDir, 0) {
			return badImage(s, "the working directory holds a zero byte")
		}
		s.Process.Cwd = path.Join("/", c.WorkingDir)
	}
	if s.StopSignal == "" && c.StopSignal != "" {
		if s.StopSignal, err = parseStopSignal("the image's stop signal", c.StopSignal); err != nil {
			return badImage(s, err.Error())
		}
	}
	if s.StopSignal == "" {
		s.StopSignal = "SIGTERM"
	}
	return nil
}

// imageVolumes are the values of --image-volume, Podman's.
var imageVolumes = []string{"anonymous", "tmpfs", "ignore"}

// maxImageVolumes bounds how many volumes an image may ask for.
const maxImageVolumes = 128

// fillVolumes gives directories that the image declares as data a volume each, or
// what else was asked for, unless something else is mounted there.
func (r *Request) fillVolumes(s *workload.Spec, _ Host, c ImageConfig) error {
	if r.imageVolume == "ignore" {
		return nil
	}
	kind := "volume"
	if r.imageVolume == "tmpfs" {
		kind = "tmpfs"
	}
	if len(c.Volumes) > maxImageVolumes {
		return badImage(s, fmt.Sprintf("it declares %d volumes, at most %d are made", len(c.Volumes), maxImageVolumes))
	}
	for _, v := range slices.Sorted(slices.Values(c.Volumes)) {
		if !path.IsAbs(v) || strings.ContainsRune(v, 0) {
			return badImage(s, fmt.Sprintf("the volume %q is not an absolute path", v))
		}
		v = path.Clean(v)
		taken := slices.ContainsFunc(s.Mounts, func(m workload.Mount) bool { return m.Target == v })
		if !taken && v != "/" && !mountedAnyway(s, v) {
			s.Mounts = append(s.Mounts, workload.Mount{Type: kind, Target: v})
		}
	}
	return nil
}

// sortMounts puts what is mounted below something else after it, as Docker does:
// in the order of their depth. Otherwise the one above would hide it.
func (r *Request) sortMounts(s *workload.Spec, _ Host, _ ImageConfig) error {
	slices.SortStableFunc(s.Mounts, func(a, b workload.Mount) int {
		return strings.Count(a.Target, "/") - strings.Count(b.Target, "/")
	})
	return nil
}

// mountedAnyway reports whether there is a file system of the kernel's at a path,
// or where an init makes one. Images made for systemd declare such places.
func mountedAnyway(s *workload.Spec, target string) bool {
	places := []string{"/proc", "/sys", "/dev"}
	if s.VM.System {
		places = append(places, "/run", "/var/run", "/tmp")
	}
	return slices.ContainsFunc(places, func(p string) bool { return target == p || strings.HasPrefix(target, p+"/") })
}

// mergeLabels lays the user's labels over the image's.
func mergeLabels(image, user map[string]string) map[string]string {
	if len(image) == 0 {
		return user
	}
	all := maps.Clone(image)
	maps.Copy(all, user)
	return all
}

// badImage is an error about the image's config.
func badImage(s *workload.Spec, wrong string) error {
	return advice.New(fmt.Sprintf("the config of image %s is malformed: %s", s.Image.Reference, wrong),
		"build the image again, or override the value with the flag of run")
}

// reason is the last part of a file error in words: "no such file or directory".
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
