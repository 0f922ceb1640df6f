package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What a test binary prints with -test.v=test2json: its own lines are marked.
const (
	passes = "\x16=== RUN   TestA\n\x16--- PASS: TestA (0.00s)\n\x16PASS\n"
	fails  = "\x16=== RUN   TestB\n    b_test.go:7: got 1, want 2\n\x16--- FAIL: TestB (0.00s)\n\x16FAIL\n"
	skips  = "\x16=== RUN   TestC\n    c_test.go:9: needs a moon\n\x16--- SKIP: TestC (0.00s)\n\x16PASS\n"
	panics = "\x16=== RUN   TestD\npanic: oh\n\ngoroutine 7 [running]:\n"
	silent = "\x16=== RUN   TestE\nstill running\n"
)

// r is a record of the guest's init; every other line is a job's output.
func r(format string, args ...any) string {
	return recordSeparator + fmt.Sprintf(format, args...) + "\n"
}

func TestFollow(t *testing.T) {
	boot, done := r("boot 6.1.0 5.5"), r("done")
	tests := []struct {
		name  string
		guest string
		want  count
		err   string   // part of the error, empty for none
		shows []string // parts of what is printed
	}{
		{"pass", boot + r("run p") + passes + r("exit p 0") + done,
			count{passed: 1}, "", []string{"ok    p"}},
		{"fail", boot + r("run p") + fails + r("exit p 1") + done,
			count{failed: 1}, "", []string{"FAIL  p", "got 1, want 2"}},
		{"skip that is excused", boot + r("run x/moon") + skips + r("exit x/moon 0") + done,
			count{skipped: 1}, "", []string{"needs a moon"}},
		{"skip without excuse", boot + r("run p") + skips + r("exit p 0") + done,
			count{skipped: 1, failed: 1}, "", []string{"FAIL  p", "does not allow: TestC"}},
		{"panic", boot + r("run p") + panics + r("exit p 2") + done,
			count{failed: 1}, "", []string{"FAIL  p", "panic: oh"}},
		{"bad status alone", boot + r("run p") + passes + r("exit p 3") + done,
			count{passed: 1, failed: 1}, "", []string{"FAIL  p", "exit status 3"}},
		{"leak", boot + r("run p") + passes + r("left p cgroup /x y") + r("exit p 0") + done,
			count{passed: 1, failed: 1}, "", []string{"left behind: cgroup /x y"}},
		{"no tests at all", boot + r("run p") + "\x16PASS\n" + r("exit p 0") + done,
			count{}, "", []string{"ok    p"}},
		{"end in a test", boot + r("run p") + silent,
			count{failed: 2}, "in the middle of p", []string{"still running", "did not end"}},
		{"end between tests", boot + r("run p") + passes + r("exit p 0"),
			count{passed: 1}, "ended early", nil},
		{"package lost", boot + done, count{}, "ran 0 of 1 packages", nil},
		{"nothing", "", count{}, "ended early", nil},
		{"nonsense", r("dance"), count{}, "dance", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			var total count
			s := stream{out: &out, total: &total, phases: newPhases(&out), jobs: make([]job, 1),
				options: options{boot: time.Minute, timeout: time.Minute, leaks: true},
				excuses: excuses{{"moon", "TestC"}}}
			err := s.follow(strings.NewReader(tt.guest), func(error) {})
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if total != tt.want {
				t.Errorf("got %v, want %v\n%s", total, tt.want, &out)
			}
			for _, part := range tt.shows {
				if !strings.Contains(out.String(), part) {
					t.Errorf("output lacks %q:\n%s", part, &out)
				}
			}
		})
	}
}

func TestFollowStopsASilentGuest(t *testing.T) {
	reader, writer := io.Pipe()
	var total count
	s := stream{out: io.Discard, total: &total, phases: newPhases(io.Discard), jobs: make([]job, 1),
		options: options{boot: 20 * time.Millisecond}}
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	// The machine's end closes the pipe, as QEMU's death does.
	context.AfterFunc(ctx, func() { writer.Close() })
	if err := s.follow(reader, stop); err == nil {
		t.Error("a silent guest gave no error")
	}
	if cause := context.Cause(ctx); cause == nil || !strings.Contains(cause.Error(), "did not boot") {
		t.Errorf("stopped because of %v, want that the guest did not boot", cause)
	}
}

func TestExcuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "skips")
	text := "# comment\nmoon TestTide* no sea\nx/y TestZ/sub1 why not\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	list, err := readExcuses(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		pkg, test string
		want      bool
	}{
		{"a/moon", "TestTideHigh", true},
		{"a/moon", "TestTideHigh/at/noon", true},
		{"a/moon", "TestOther", false},
		{"a/honeymoon", "TestTideHigh", false},
		{"a/x/y", "TestZ/sub1", true},
		{"a/x/y", "TestZ", false},
	} {
		if got := list.cover(tt.pkg, tt.test); got != tt.want {
			t.Errorf("cover(%s, %s) = %v, want %v", tt.pkg, tt.test, got, tt.want)
		}
	}
	for _, bad := range []string{"moon TestTide\n", "moon Test[ why\n"} {
		if err := os.WriteFile(file, []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readExcuses(file); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
