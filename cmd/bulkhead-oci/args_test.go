package main

import (
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	options := []option{
		{name: "bundle", short: "b", value: "DIR"}, {name: "detach", short: "d"},
		{name: "env", short: "e", value: "NAME=VALUE"}, {name: "no-subreaper"},
	}
	for _, c := range []struct {
		line string
		stop bool
		want values
		rest string
	}{
		{"--bundle /b id", false, values{"bundle": {"/b"}}, "id"},
		{"--bundle=/b id", false, values{"bundle": {"/b"}}, "id"},
		{"-b /b id", false, values{"bundle": {"/b"}}, "id"},
		{"-bundle /b id", false, values{"bundle": {"/b"}}, "id"},
		{"-no-subreaper id", false, values{"no-subreaper": {"true"}}, "id"},
		{"--detach=false id", false, values{"detach": {"false"}}, "id"},
		{"id -d", false, values{"detach": {"true"}}, "id"},
		{"id ls -d", true, values{}, "id ls -d"},
		{"-d id -- ls -d", true, values{"detach": {"true"}}, "id -- ls -d"},
		{"-- -d", false, values{}, "-d"},
		{"-e a=b -e c=d=e id", false, values{"env": {"a=b", "c=d=e"}}, "id"},
		{"--bundle -1 id", false, values{"bundle": {"-1"}}, "id"},
		{"--bundle= id", false, values{"bundle": {""}}, "id"},
		{"-", false, values{}, "-"},
	} {
		v, rest, err := parse(options, strings.Fields(c.line), c.stop)
		if err != nil || !reflect.DeepEqual(v, c.want) || strings.Join(rest, " ") != c.rest {
			t.Errorf("%q: got %v, %q, %v; want %v, %q", c.line, v, rest, err, c.want, c.rest)
		}
	}
	for line, want := range map[string]string{
		"--nope":         "unknown flag --nope",
		"--bundle":       "--bundle needs a value",
		"--detach=maybe": "neither true nor false",
		"--=x":           "unknown flag",
	} {
		if _, _, err := parse(options, strings.Fields(line), false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", line, err, want)
		}
	}
}
