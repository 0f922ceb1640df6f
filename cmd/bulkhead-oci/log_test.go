package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestLog(t *testing.T) {
	for _, c := range []struct {
		name     string
		v        values
		log, err string // what --log and standard error hold
	}{
		{"plain", values{}, "", "time=\"2026-01-02T03:04:05Z\" level=warning msg=\"w \\\"1\\\"\"\nboom\n"},
		{"json to stderr", values{"log-format": {"json"}}, "",
			`{"level":"warning","msg":"w \"1\"","time":"2026-01-02T03:04:05Z"}` + "\n" +
				`{"level":"error","msg":"boom","time":"2026-01-02T03:04:05Z"}` + "\n"},
		{"json to a file", values{"log-format": {"json"}, "log": {""}},
			`{"level":"warning","msg":"w \"1\"","time":"2026-01-02T03:04:05Z"}` + "\n" +
				`{"level":"error","msg":"boom","time":"2026-01-02T03:04:05Z"}` + "\n", "boom\n"},
		{"debug", values{"debug": {"true"}}, "",
			"time=\"2026-01-02T03:04:05Z\" level=debug msg=\"d\"\n" +
				"time=\"2026-01-02T03:04:05Z\" level=warning msg=\"w \\\"1\\\"\"\nboom\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			log := filepath.Join(dir, "log")
			if c.v.given("log") {
				c.v["log"] = []string{log}
			}
			stderr, err := os.Create(filepath.Join(dir, "err"))
			if err != nil {
				t.Fatal(err)
			}
			defer stderr.Close()
			l, err := openLog(c.v, stderr)
			if err != nil {
				t.Fatal(err)
			}
			l.now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
			l.Debugf("d")
			l.Warnf("w %q", "1")
			l.Fail(stderr, errors.New("boom"))
			got, _ := os.ReadFile(log)
			gotErr, _ := os.ReadFile(stderr.Name())
			if string(got) != c.log || string(gotErr) != c.err {
				t.Errorf("log:\n%s\nwant:\n%s\nstandard error:\n%s\nwant:\n%s", got, c.log, gotErr, c.err)
			}
		})
	}
	if _, err := openLog(values{"log-format": {"xml"}}, os.Stderr); err == nil {
		t.Error("an unknown format was accepted")
	}
}
