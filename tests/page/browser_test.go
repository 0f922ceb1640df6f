package page_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// browser is Chromium without a window, driven by its DevTools protocol over a pair
// of pipes: messages of JSON with a zero byte behind each.
type browser struct {
	t    *testing.T
	in   *os.File
	out  *bufio.Reader
	next int
	// events are those that came while an answer was awaited.
	events  []message
	session string
}

// message is a call, its answer, or an event.
type message struct {
	ID      int             `json:"id,omitempty"`
	Method  string          `json:"method,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// patience is for all that one test has the browser do, on a busy machine.
const patience = 10 * time.Minute

// start starts Chromium with a page of its own, or skips the test where there is none.
func start(t *testing.T) *browser {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("there is no chromium on the PATH to show the page in")
	}
	theirIn, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	// It cannot make a sandbox for itself where tests run as root.
	cmd := exec.CommandContext(ctx, program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--log-level=3", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe", "--user-data-dir="+home, "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home)
	cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.WaitDelay = patience
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		in.Close()
		out.Close()
		if t.Failed() {
			t.Logf("chromium said: %.4000s", stderr.String())
		}
	})
	b := &browser{t: t, in: in, out: bufio.NewReader(out)}
	var target struct{ TargetID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	for _, domain := range []string{"Page", "Network", "Log", "Runtime"} {
		b.call(domain+".enable", nil, nil)
	}
	return b
}

// call makes a call and waits for its answer.
func (b *browser) call(method string, params, result any) {
	b.t.Helper()
	b.next++
	m := message{ID: b.next, Method: method, Session: b.session}
	if params != nil {
		p, err := json.Marshal(params)
		if err != nil {
			b.t.Fatal(err)
		}
		m.Params = p
	}
	text, err := json.Marshal(m)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.in.Write(append(text, 0)); err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
	for {
		got := b.read()
		if got.ID != m.ID {
			b.events = append(b.events, got)
			continue
		}
		if got.Error != nil {
			b.t.Fatalf("%s: %s", method, got.Error.Message)
		}
		if result != nil {
			if err := json.Unmarshal(got.Result, result); err != nil {
				b.t.Fatalf("%s: %v", method, err)
			}
		}
		return
	}
}

func (b *browser) read() (m message) {
	b.t.Helper()
	text, err := b.out.ReadBytes(0)
	if err == nil {
		err = json.Unmarshal(text[:len(text)-1], &m)
	}
	if err != nil {
		b.t.Fatal(errors.Join(errors.New("chromium fell silent"), err))
	}
	return m
}

// wait waits for an event. All that come before it are kept.
func (b *browser) wait(method string) {
	b.t.Helper()
	for {
		m := b.read()
		b.events = append(b.events, m)
		if m.Method == method {
			return
		}
	}
}

// look is how a page is shown.
type look struct {
	width, height int
	scheme        string // light or dark
	media         string // screen or print
	script        bool   // whether scripts run
}

func (l look) String() string {
	s := fmt.Sprintf("%d-%s-%s", l.width, l.scheme, l.media)
	if !l.script {
		s += "-noscript"
	}
	return s
}

// open shows a file and returns what happened meanwhile.
func (b *browser) open(file string, l look) []message {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": l.width, "height": l.height, "deviceScaleFactor": 1, "mobile": l.width < 600}, nil)
	b.call("Emulation.setEmulatedMedia", map[string]any{"media": l.media, "features": []map[string]string{{"name": "prefers-color-scheme", "value": l.scheme}}}, nil)
	b.call("Emulation.setScriptExecutionDisabled", map[string]any{"value": !l.script}, nil)
	b.events = nil
	b.call("Page.navigate", map[string]any{"url": "file://" + file}, nil)
	if !b.loaded() {
		b.wait("Page.loadEventFired")
	}
	return b.events
}

func (b *browser) loaded() bool {
	for _, m := range b.events {
		if m.Method == "Page.loadEventFired" {
			return true
		}
	}
	return false
}

// eval evaluates an expression on the page.
func (b *browser) eval(expression string, result any) {
	b.t.Helper()
	var r struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct{ Text string }
	}
	b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}, &r)
	if r.ExceptionDetails != nil {
		b.t.Fatalf("evaluating: %s", r.ExceptionDetails.Text)
	}
	if err := json.Unmarshal(r.Result.Value, result); err != nil {
		b.t.Fatal(err)
	}
}
