package probe

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// TestHostileWorkload puts a liar in the prober's place. Whatever it says, hides or
// does, nothing is held, the reason is told, and nothing is left.
func TestHostileWorkload(t *testing.T) {
	w := newWorld(t)
	liars := liarsBeside(t, w.dir)
	for _, tt := range []struct{ lie, flags, want string }{
		{"silence", "", "ended before it had told anything: exit code 0"},
		{"death", "", `exit code 7: "\x1b[2Jfarewell"`},
		{"hang", "--timeout 1s", "told nothing within 1s"},
		{"flood", "", "wrote more than 1048576 bytes"},
		{"flood of lines", "", "is no prober's"},
		{"memory", "--memory 64m", "for want of memory"},
		{"another word", "", "does not have the word that the prober was given"},
		{"another kernel", "", `says that it runs on Linux "9.9.9"`},
		{"nothing tried", "", "only 0 of its statements"},
		{"half", "", "is no prober's"},
		{"more", "", "is no prober's"},
		{"namespace", "--pid host", `namespaces.pid: the workload says "pid:[4026539999]", the host sees`},
		{"capabilities", "--cap-add NET_RAW", `capabilities.effective: the workload says "00000000000000ff"`},
		{"filter", "--security-opt seccomp=unconfined", `syscalls.filter: the workload says "2", the host sees "0"`},
	} {
		t.Run(tt.lie, func(t *testing.T) {
			one := *w
			one.T = t
			args := append([]string{"probe", "--json", "-e", "LIE=" + tt.lie}, strings.Fields(tt.flags)...)
			d := one.decode(one.run(exec.Command(filepath.Join(liars, "bulkhead"), append(args, "box")...)))
			if d.ExitCode() != report.ExitInconclusive {
				t.Errorf("exit code %d", d.ExitCode())
			}
			for _, f := range d.Reports[0].Findings {
				if f.Verdict != report.Unknown || !strings.Contains(f.Reason, tt.want) {
					t.Fatalf("%s: %s, %q; want unknown with %q", f.ID, f.Verdict, f.Reason, tt.want)
				}
			}
			if left := one.must("ps", "-aq"); left != "" {
				t.Errorf("a workload is left: %s", left)
			}
		})
	}
}

// liarsBeside makes a directory of the programs with a liar in the prober's place.
func liarsBeside(t *testing.T, dir string) string {
	t.Helper()
	liars := filepath.Join(dir, "bin")
	list, err := filepath.Glob(filepath.Join(bin, "bulkhead*"))
	if err == nil {
		err = os.Mkdir(liars, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range list {
		if filepath.Base(program) == "bulkhead-probe" {
			continue
		}
		b, err := os.ReadFile(program)
		if err == nil {
			err = os.WriteFile(filepath.Join(liars, filepath.Base(program)), b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	buildLiar(t, filepath.Join(liars, "bulkhead-probe"))
	return liars
}

// buildLiar builds the program of ./liar. The test guest has it.
func buildLiar(t *testing.T, to string) {
	t.Helper()
	if inGuest() {
		from, err := exec.LookPath("liar")
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	build := exec.Command("go", "build", "-o", to, "./liar")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the liar: %v: %s", err, out)
	}
}
