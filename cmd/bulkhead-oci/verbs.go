package main

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// verb is one command of the command line.
type verb struct {
	name     string
	operands string // for the help
	summary  string
	example  string // what follows the program's name
	options  []option
	least    int  // operands
	most     int  // -1: any number
	command  bool // the operands end with another program's command line
	raw      bool // whatever follows is accepted: the verb is refused by name, not for a flag
	failure  int  // exit code of a failure, 0 for 1
	run      func(*command) (int, error)
}

// command is one invocation.
type command struct {
	ctx     context.Context // done when this command is told to end
	release func()          // lets signals through to whoever else wants them
	log     *logger
	store   store
	global  values
	flags   values
	args    []string // operands
	stdin   *os.File
	stdout  *os.File
	stderr  *os.File
}

func (c *command) id() string { return c.args[0] }

var globalOptions = []option{
	{name: "root", value: "DIR", help: "keep the containers' state in DIR (default " + defaultRoot + ")"},
	{name: "log", value: "FILE", help: "write the log to FILE instead of standard error"},
	{name: "log-format", value: "FORMAT", help: "text or json (default text)"},
	{name: "debug", help: "log more"},
	{name: "systemd-cgroup", help: "cgroupsPath has the form slice:prefix:name"},
	{name: "rootless", value: "MODE", help: "has no effect: containers are made by root"},
	{name: "cgroup-manager", value: "NAME", help: "cgroupfs or systemd, as --systemd-cgroup"},
	{name: "criu", value: "PATH"},
	{name: "version", short: "v", help: "print the version"},
	{name: "help", short: "h", help: "print this help"},
}

var helpOption = option{name: "help", short: "h", help: "print this help"}

var createOptions = []option{
	{name: "bundle", short: "b", value: "DIR", help: "the bundle's directory (default the current one)"},
	{name: "console-socket", value: "SOCKET", help: "send the terminal's master there"},
	{name: "pidfd-socket", value: "SOCKET", help: "send a descriptor of the first process there"},
	{name: "pid-file", value: "FILE", help: "write the first process's ID there"},
	{name: "no-pivot", help: "has no effect: the root is always changed with pivot_root"},
	{name: "no-new-keyring", help: "keep the caller's session keyring"},
	{name: "preserve-fds", value: "N", help: "leave N descriptors after standard error open"},
}

// verbs returns the command line's verbs in the order of the help.
func verbs() []verb {
	with := func(first []option, more ...option) []option {
		return append(first[:len(first):len(first)], more...)
	}
	one := func(v verb) verb { v.operands, v.least, v.most = "ID", 1, 1; return v }
	list := []verb{
		one(verb{name: "create", summary: "make a container; its process waits for start", run: runCreate,
			options: createOptions, example: "create --bundle /srv/web web1"}),
		one(verb{name: "start", summary: "let the process of a created container run", run: runStart, example: "start web1"}),
		one(verb{name: "run", summary: "create and start a container", run: runRun,
			options: with(createOptions,
				option{name: "detach", short: "d", help: "do not wait for the container"},
				option{name: "keep", help: "do not delete the container when it ends"},
				option{name: "no-subreaper"}),
			example: "run --bundle /srv/web web1"}),
		{name: "exec", operands: "ID COMMAND [ARG…]", summary: "run another process in a container", run: runExec,
			least: 1, most: -1, command: true, failure: 255, example: "exec --tty web1 sh", options: execOptions},
		one(verb{name: "state", summary: "print a container's state as JSON", run: runState, example: "state web1"}),
		{name: "list", summary: "list the containers", run: runList, example: "list --format json", options: []option{
			{name: "format", short: "f", value: "FORMAT", help: "table or json (default table)"},
			{name: "quiet", short: "q", help: "IDs only"}}},
		{name: "kill", operands: "ID [SIGNAL]", summary: "send a signal to a container's first process (default TERM)",
			run: runKill, least: 1, most: 2, example: "kill web1 KILL", options: []option{
				{name: "all", short: "a", help: "to all its processes; a stopped container is no error"}}},
		one(verb{name: "delete", summary: "remove what a stopped container holds", run: runDelete, example: "delete web1",
			options: []option{{name: "force", short: "f", help: "kill it first; one that does not exist is no error"}}}),
		one(verb{name: "pause", summary: "stop all processes of a container", run: runPause, example: "pause web1"}),
		one(verb{name: "resume", summary: "let a paused container go on", run: runResume, example: "resume web1"}),
		{name: "ps", operands: "ID [PS-OPTION…]", summary: "list a container's processes", run: runPs, least: 1, most: -1,
			command: true, example: "ps --format json web1", options: []option{
				{name: "format", short: "f", value: "FORMAT", help: "table or json (default table)"}}},
		one(verb{name: "update", summary: "change a container's limits", run: runUpdate, options: updateOptions,
			example: "update --memory 512M --pids-limit 100 web1"}),
		one(verb{name: "events", summary: "print a container's figures and out-of-memory kills as JSON", run: runEvents,
			example: "events --stats web1", options: []option{
				{name: "stats", help: "print the figures once"},
				{name: "interval", value: "TIME", help: "between figures (default 5s)"}}}),
		{name: "spec", summary: "write a config.json to start from", run: runSpec, example: "spec --bundle /srv/web",
			options: []option{
				{name: "bundle", short: "b", value: "DIR", help: "where to write it (default the current directory)"},
				{name: "rootless", help: "in a user namespace in which only the current user exists, on the host's network"}}},
		{name: "features", summary: "print what this runtime can do as JSON", run: runFeatures, example: "features"},
		{name: "checkpoint", operands: "ID", summary: "not supported", most: -1, raw: true, run: refused("checkpoint"), example: "checkpoint web1"},
		{name: "restore", operands: "ID", summary: "not supported", most: -1, raw: true, run: refused("restore"), example: "restore web1"},
	}
	for i := range list {
		list[i].options = with(list[i].options, helpOption)
	}
	return list
}

func refused(name string) func(*command) (int, error) {
	return func(*command) (int, error) {
		return 0, fmt.Errorf("%s is not supported by this runtime", name)
	}
}

// writeHelp prints the help of the program, or of one verb.
func writeHelp(w *os.File, self string, v *verb) {
	var b strings.Builder
	if v == nil {
		fmt.Fprintf(&b, "NAME:\n   %s - Open Container Initiative runtime, containers by launch programs\n\n", self)
		fmt.Fprintf(&b, "USAGE:\n   %s [FLAG…] COMMAND [FLAG…] [ARG…]\n\nCOMMANDS:\n", self)
		for _, v := range verbs() {
			fmt.Fprintf(&b, "   %-12s %s\n", v.name, v.summary)
		}
		writeOptions(&b, globalOptions)
	} else {
		fmt.Fprintf(&b, "NAME:\n   %s %s - %s\n\n", self, v.name, v.summary)
		fmt.Fprintf(&b, "USAGE:\n   %s %s [FLAG…] %s\n\nEXAMPLE:\n   %s %s\n", self, v.name, v.operands, self, v.example)
		writeOptions(&b, v.options)
	}
	fmt.Fprint(w, b.String())
}

func writeOptions(b *strings.Builder, options []option) {
	b.WriteString("\nFLAGS:\n")
	for _, o := range options {
		if o.help == "" {
			continue
		}
		name := "--" + o.name
		if o.short != "" {
			name += ", -" + o.short
		}
		if o.value != "" {
			name += " " + o.value
		}
		fmt.Fprintf(b, "   %-28s %s\n", name, o.help)
	}
}
