package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"
)

// logger writes what engines read. With --log-format json each line is an
// object with level, msg and time, the form that containerd, Docker and Podman
// parse to find out why a command failed.
type logger struct {
	file  *os.File // --log, or standard error
	own   bool     // file is --log's
	json  bool
	debug bool
	now   func() time.Time
}

// openLog opens the log that the global flags ask for.
func openLog(v values, stderr *os.File) (*logger, error) {
	l := &logger{file: stderr, debug: v.on("debug"), now: time.Now}
	switch f := v.last("log-format", "text"); f {
	case "json":
		l.json = true
	case "text", "":
	default:
		return nil, usagef("--log-format: %q is neither text nor json", f)
	}
	if name := v.last("log", ""); name != "" {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_SYNC, 0o644)
		if err != nil {
			return nil, fmt.Errorf("open the log: %w", err)
		}
		l.file, l.own = f, true
	}
	return l, nil
}

func (l *logger) write(level, msg string) {
	at := l.now().Format(time.RFC3339)
	line := "time=" + strconv.Quote(at) + " level=" + level + " msg=" + strconv.Quote(msg) + "\n"
	if l.json {
		b, err := json.Marshal(struct {
			Level string `json:"level"`
			Msg   string `json:"msg"`
			Time  string `json:"time"`
		}{level, msg, at})
		if err != nil { // strings always have a JSON form
			b = []byte(`{"level":"error"}`)
		}
		line = string(b) + "\n"
	}
	// One write per line: several commands may share the file. That it fails
	// (a full disk) is no reason to stop what is being done.
	_, _ = l.file.WriteString(line)
}

// Debugf is written with --debug only.
func (l *logger) Debugf(format string, a ...any) {
	if l.debug {
		l.write("debug", fmt.Sprintf(format, a...))
	}
}

// Warnf tells of something that is done otherwise than was asked.
func (l *logger) Warnf(format string, a ...any) { l.write("warning", fmt.Sprintf(format, a...)) }

// Fail tells why the command failed: to the log and, one plain sentence, to
// the person in front of it.
func (l *logger) Fail(stderr *os.File, err error) {
	if l.own || l.json {
		l.write("error", err.Error())
	}
	if l.own || !l.json {
		fmt.Fprintln(stderr, err)
	}
}
