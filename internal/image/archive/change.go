package archive

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
)

// Change applies one Dockerfile instruction to a config: CMD, ENTRYPOINT, ENV,
// EXPOSE, HEALTHCHECK, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR. Others are refused.
func Change(c *manifest.RunConfig, line string) error {
	word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	rest = strings.TrimSpace(rest)
	if err := change(c, strings.ToUpper(word), rest); err != nil {
		return fmt.Errorf("change %q: %w", line, err)
	}
	if err := c.Check(); err != nil {
		return fmt.Errorf("change %q: %w", line, err)
	}
	return nil
}

func change(c *manifest.RunConfig, word, rest string) (err error) {
	if rest == "" && word != "CMD" && word != "ENTRYPOINT" {
		return errors.New("want INSTRUCTION ARGUMENTS")
	}
	switch word {
	case "CMD":
		c.Cmd, err = command(rest)
	case "ENTRYPOINT":
		c.Entrypoint, err = command(rest)
	case "ENV":
		var pairs [][2]string
		pairs, err = assignments(rest)
		for _, p := range pairs {
			c.Env = setEnv(c.Env, p[0], p[1])
		}
	case "LABEL":
		var pairs [][2]string
		pairs, err = assignments(rest)
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
			c.Volumes = with(c.Volumes, v)
		}
	case "WORKDIR":
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
		list, err := command(rest)
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

// command reads the JSON form, or gives the shell form to /bin/sh.
func command(s string) ([]string, error) {
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
	return []string{"/bin/sh", "-c", s}, nil
}

// assignments reads "K=V K2=\"v w\"" or, for one, "K V".
func assignments(s string) ([][2]string, error) {
	words, err := fields(s)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(words[0], "=") {
		key, value, ok := strings.Cut(s, " ")
		if !ok {
			return nil, errors.New("want NAME=value")
		}
		return [][2]string{{key, strings.TrimSpace(value)}}, nil
	}
	var out [][2]string
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok || key == "" {
			return nil, errors.New("want NAME=value")
		}
		out = append(out, [2]string{key, value})
	}
	return out, nil
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

// fields splits at spaces, with quotes and backslashes as in a Dockerfile.
func fields(s string) ([]string, error) {
	var out []string
	var word strings.Builder
	var quote rune
	inWord, escaped := false, false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '"' || r == '\'':
			quote, inWord = r, true
		case r == ' ' || r == '\t':
			if inWord {
				out = append(out, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, errors.New("a quote or backslash is left open")
	}
	if inWord {
		out = append(out, word.String())
	}
	return out, nil
}
