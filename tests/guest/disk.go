package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// job is one test binary in the guest.
type job struct {
	name string // import path
	dir  string // the package's directory, the same in the guest as here
}

// output runs a command and returns its standard output; the error holds what it
// wrote to standard error.
func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return string(out), nil
}

// prepareImage returns the directory with the kernel and the root disk.
func prepareImage(ctx context.Context, o options) (string, error) {
	cmd := exec.CommandContext(ctx, "tests/guest/image", "-kernel", o.kernel, "-with", o.with)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("tests/guest/image: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// layOut fills tree with what the guest finds under /guest. A package that does
// not compile, or commands that do not build, are printed and counted as
// failures; the other packages still run.
func layOut(ctx context.Context, o options, tree string, out io.Writer) (jobs []job, failed int, err error) {
	for _, dir := range []string{"bin", "src", "results"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			return nil, 0, err
		}
	}
	root, err := os.Getwd()
	if err != nil {
		return nil, 0, err
	}
	if err := copySource(ctx, filepath.Join(tree, "src")); err != nil {
		return nil, 0, err
	}
	unbuilt := 0
	if err := buildCommands(ctx, filepath.Join(tree, "src", "bin")); err != nil {
		fmt.Fprintf(out, "FAIL  %v", err)
		unbuilt = 1
	}
	mode := "jobs"
	switch {
	case o.shell:
		mode = "shell"
	case o.script != "":
		mode = "script"
	}
	var list strings.Builder
	if mode != "script" {
		jobs, failed, err = compileTests(ctx, o, filepath.Join(tree, "bin"), out)
		if err != nil {
			return nil, 0, err
		}
		failed += unbuilt
		if mode == "jobs" && len(jobs)+failed == 0 {
			return nil, 0, fmt.Errorf("no package with tests matches %s", strings.Join(o.packages, " "))
		}
		for i, j := range jobs {
			fmt.Fprintf(&list, "%s %s /guest/bin/%s %d\n", j.name, j.dir, binaryName(i, j), int(o.timeout.Seconds())+30)
		}
	}
	config := fmt.Sprintf("root='%s'\nmode=%s\nlimit=%d\nload=%s\n", root, mode, int(o.timeout.Seconds()), o.load())
	files := map[string]string{"jobs": list.String(), "config": config, "args": strings.Join(o.testArgs, "\n") + "\n"}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(text), 0o644); err != nil {
			return nil, 0, err
		}
	}
	copies := append(copies{"tests/guest/init:init", "tests/guest/modules:modules"}, o.copies...)
	for _, c := range copies {
		source, name, found := strings.Cut(c, ":")
		if !found {
			name = filepath.Base(source)
		}
		target := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return nil, 0, err
		}
		if _, err := output(ctx, "cp", "-a", "--", source, target); err != nil {
			return nil, 0, err
		}
	}
	if mode != "script" {
		return jobs, failed, nil
	}
	// Read, not copied: it may come through a pipe.
	text, err := os.ReadFile(o.script)
	if err != nil {
		return nil, 0, err
	}
	return nil, unbuilt, os.WriteFile(filepath.Join(tree, "script"), text, 0o755)
}

// load names a module that only some guests load.
func (o options) load() string {
	if o.kvm {
		return "kvm_amd" // whose instructions QEMU emulates; it knows no Intel ones
	}
	return ""
}

// copySource copies the files that git knows or would add.
func copySource(ctx context.Context, dst string) error {
	names, err := output(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return err
	}
	var present strings.Builder
	for name := range strings.SplitSeq(strings.TrimRight(names, "\x00"), "\x00") {
		// A file that was deleted but is still in the index is not there to copy.
		if _, err := os.Lstat(name); err == nil {
			present.WriteString(name + "\x00")
		}
	}
	cmd := exec.CommandContext(ctx, "xargs", "-0", "cp", "-a", "--parents", "-t", dst, "--")
	cmd.Stdin = strings.NewReader(present.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("copy the source tree: %w\n%s", err, out)
	}
	return nil
}

// programs are what the guest has on its PATH: the commands, and what tests run
// inside workloads or in place of a command.
var programs = []string{
	"./cmd/...",
	"./cmd/bulkhead/testdata/talk",
	"./internal/boundary/boundarytest/program",
	"./internal/network/bridge/testdata/mute",
	"./internal/network/dns/testdata/hostile",
	"./tests/probe/liar",
}

// buildCommands builds the programs, which the guest has on its PATH.
func buildCommands(ctx context.Context, dst string) error {
	if _, err := os.Stat("cmd"); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	list, err := output(ctx, "go", append([]string{"list", "-e", "-f", "{{.ImportPath}}"}, programs...)...)
	if err != nil || list == "" {
		return err
	}
	if err := os.MkdirAll(dst, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-o", dst + "/"}, programs...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build ./cmd/...: %w\n%s", err, out)
	}
	return nil
}

// binaryName keeps packages with the same last element apart.
func binaryName(i int, j job) string { return fmt.Sprintf("%02d-%s.test", i, filepath.Base(j.dir)) }

// compileTests compiles a static test binary for each package with tests.
func compileTests(ctx context.Context, o options, dst string, out io.Writer) (jobs []job, failed int, err error) {
	const format = "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}"
	args := append([]string{"list", "-e", "-tags=" + o.tags, "-f", format}, o.packages...)
	list, err := output(ctx, "go", args...)
	if err != nil {
		return nil, 0, err
	}
	for line := range strings.Lines(list) {
		name, dir, found := strings.Cut(strings.TrimSpace(line), " ")
		if !found {
			continue
		}
		j := job{name: name, dir: dir}
		binary := filepath.Join(dst, binaryName(len(jobs), j))
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-tags="+o.tags, "-ldflags=-w", "-o", binary, name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			if ctx.Err() != nil {
				return nil, 0, ctx.Err()
			}
			fmt.Fprintf(out, "FAIL  %s  does not compile\n%s", name, text)
			failed++
			continue
		}
		jobs = append(jobs, j)
	}
	return jobs, failed, nil
}

// makeDisk makes an ext4 image of a tree, with 2 GiB of room beside it.
func makeDisk(ctx context.Context, tree, disk string) error {
	used, err := output(ctx, "du", "-sm", tree)
	if err != nil {
		return err
	}
	var mib int
	if _, err := fmt.Sscan(used, &mib); err != nil {
		return fmt.Errorf("du printed %q: %w", used, err)
	}
	_, err = output(ctx, "mke2fs", "-q", "-t", "ext4", "-L", "jobs", "-O", "^has_journal", "-m", "0",
		"-E", "root_owner=0:0", "-d", tree, disk, fmt.Sprintf("%dM", mib*11/10+2048))
	if err != nil {
		return err
	}
	return os.RemoveAll(tree)
}

// copyResults copies the guest's directory /guest/results into dst.
func copyResults(ctx context.Context, disk, dst string) error {
	if err := os.MkdirAll(dst, 0o755); err != nil {
		return err
	}
	if _, err := output(ctx, "debugfs", "-R", fmt.Sprintf("rdump /results %q", dst), disk); err != nil {
		return err
	}
	// debugfs ends with 0 whatever happened.
	if _, err := os.Stat(filepath.Join(dst, "results")); err != nil {
		return fmt.Errorf("copy the results from %s: %w", disk, err)
	}
	return nil
}
