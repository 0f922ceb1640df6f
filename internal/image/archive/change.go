package archive

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
)

// Change applies Dockerfile instructions to a config: CMD, ENTRYPOINT, ENV,
// EXPOSE, HEALTHCHECK, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR. Others are refused.
//
// As in a Dockerfile, variables stand for what the config's environment says before
// the line, but in commands, whose shell may expand them; the shell form is run by
// the config's shell; and an ENTRYPOINT takes a CMD away that no line before it set.
func Change(c *manifest.RunConfig, lines ...string) error {
	e := &editor{c: c}
	for _, line := range lines {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		err := e.change(strings.ToUpper(word), strings.TrimSpace(rest))
		if err == nil {
			err = c.Check()
		}
		if err != nil {
			return fmt.Errorf("change %q: %w", line, err)
		}
	}
	return nil
}

// editor applies the lines of one Change.
type editor struct {
	c      *manifest.RunConfig
	cmdSet bool // by a line
}

func (e *editor) change(word, rest string) (err error) {
	c := e.c
	if rest == "" && word != "CMD" && word != "ENTRYPOINT" {
		return errors.New("want INSTRUCTION ARGUMENTS")
	}
	switch word {
	case "EXPOSE", "USER", "STOPSIGNAL", "WORKDIR":
		if rest, err = expand(rest, c.Env); err != nil {
			return err
		}
	}
	switch word {
	case "CMD":
		c.Cmd, err = command(rest, c.Shell)
		e.cmdSet = len(c.Cmd) > 0
	case "ENTRYPOINT":
		c.Entrypoint, err = command(rest, c.Shell)
		if !e.cmdSet {
			c.Cmd = nil
		}
	case "ENV":
		var pairs [][2]string
		pairs, err = assignments(rest, c.Env)
		for _, p := range pairs {
			c.Env = setEnv(c.Env, p[0], p[1])
		}
	case "LABEL":
		var pairs [][2]string
		pairs, err = assignments(rest, c.Env)
		for _, p := range pairs {
			if c.Labels == nil {
				c.Labels = make(map[string]string)
			}
			c.Labels[p[0]] = p[1]
		}
	case "EXPOSE":
		for _, p := range strings.Fields(rest) {
			if !strings.Contains(p, "/") {
				p += "/tcp"
			}
			c.ExposedPorts = with(c.ExposedPorts, strings.ToLower(p))
		}
	case "VOLUME":
		var list []string
		if strings.HasPrefix(rest, "[") {
			err = json.Unmarshal([]byte(rest), &list)
		} else {
			list, err = fields(rest)
		}
		for _, v := range list {
			if v, err = expand(v, c.Env); err != nil {
				return err
			}
			c.Volumes = with(c.Volumes, v)
		}
	case "WORKDIR":
		if rest == "" {
			return errors.New("the directory is empty")
		}
		if !path.IsAbs(rest) && c.WorkingDir == "" {
			c.WorkingDir = "/"
		}
		if !path.IsAbs(rest) {
			rest = path.Join(c.WorkingDir, rest)
		}
		c.WorkingDir = path.Clean(rest)
	case "USER":
		c.User = rest
	case "STOPSIGNAL":
		c.StopSignal = rest
	case "HEALTHCHECK":
		c.Healthcheck, err = healthcheck(rest)
	default:
		return errors.New("want CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR")
	}
	return err
}

// healthcheck reads "NONE" or "[--interval=T] [--timeout=T] [--start-period=T]
// [--start-interval=T] [--retries=N] CMD command".
func healthcheck(s string) (*manifest.Healthcheck, error) {
	const want = "want NONE, or options and CMD with a command, such as --interval=10s CMD pg_isready"
	h := &manifest.Healthcheck{}
	for strings.HasPrefix(s, "--") {
		var option string
		option, s, _ = strings.Cut(s, " ")
		s = strings.TrimSpace(s)
		name, value, _ := strings.Cut(option, "=")
		if name == "--retries" {
			n, err := strconv.ParseUint(value, 10, 31)
			if err != nil {
				return nil, fmt.Errorf("%s: not a number", option)
			}
			h.Retries = int(n)
			continue
		}
		field := map[string]*time.Duration{
			"--interval": &h.Interval, "--timeout": &h.Timeout, "--start-period": &h.StartPeriod, "--start-interval": &h.StartInterval,
		}[name]
		d, err := time.ParseDuration(value)
		if field == nil || err != nil || d < 0 {
			return nil, errors.New(want)
		}
		*field = d
	}
	word, rest, _ := strings.Cut(s, " ")
	rest = strings.TrimSpace(rest)
	switch word = strings.ToUpper(word); {
	case word == "NONE" && rest == "":
		h.Test = []string{"NONE"}
	case word == "CMD" && strings.HasPrefix(rest, "["):
		list, err := command(rest, nil)
		if err != nil {
			return nil, err
		}
		h.Test = append([]string{"CMD"}, list...)
	case word == "CMD" && rest != "":
		h.Test = []string{"CMD-SHELL", rest}
	default:
		return nil, errors.New(want)
	}
	return h, nil
}

func with(set map[string]struct{}, key string) map[string]struct{} {
	if set == nil {
		set = make(map[string]struct{})
	}
	set[key] = struct{}{}
	return set
}

// command reads the JSON form, or gives the shell form to a shell, /bin/sh by default.
func command(s string, shell []string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	if strings.HasPrefix(s, "[") {
		var list []string
		if err := json.Unmarshal([]byte(s), &list); err != nil {
			return nil, errors.New(`want a JSON list of strings such as ["sh", "-c", "ls"]`)
		}
		return list, nil
	}
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), s), nil
}

// assignments reads "K=V K2=\"v w\"" or, for one, "K V", with variables of env.
func assignments(s string, env []string) ([][2]string, error) {
	words, err := fields(s)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(words[0], "=") {
		key, value, ok := strings.Cut(s, " ")
		if !ok {
			return nil, errors.New("want NAME=value")
		}
		return expandAll(env, [2]string{key, strings.TrimSpace(value)})
	}
	var out [][2]string
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok {
			return nil, errors.New("want NAME=value")
		}
		out = append(out, [2]string{key, value})
	}
	return expandAll(env, out...)
}

func expandAll(env []string, pairs ...[2]string) ([][2]string, error) {
	for i := range pairs {
		for j := range pairs[i] {
			var err error
			if pairs[i][j], err = expand(pairs[i][j], env); err != nil {
				return nil, err
			}
		}
		if pairs[i][0] == "" {
			return nil, errors.New("want NAME=value")
		}
	}
	return pairs, nil
}

func setEnv(env []string, key, value string) []string {
	for i, e := range env {
		if strings.HasPrefix(e, key+"=") {
			env[i] = key + "=" + value
			return env
		}
	}
	return append(env, key+"="+value)
}

// fields splits at spaces that are not quoted, and leaves quotes and backslashes
// in the words, for expand.
func fields(s string) ([]string, error) {
	var out []string
	start := -1
	var quote byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		if quote == 0 && (c == ' ' || c == '\t') {
			if start >= 0 {
				out = append(out, s[start:i])
				start = -1
			}
			continue
		}
		if start < 0 {
			start = i
		}
		switch {
		case c == '\\' && quote != '\'':
			if i++; i == len(s) {
				return nil, errOpen
			}
		case c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		}
	}
	if quote != 0 {
		return nil, errOpen
	}
	if start >= 0 {
		out = append(out, s[start:])
	}
	return out, nil
}
