package main

// Why there is no such command.
const (
	builtElsewhere = "images are built elsewhere; load what Docker, Podman or a builder has made, or `import` a root file system"
	loginElsewhere = "`docker login` or `podman login` leave credentials where `pull` finds them, and `logout` takes them away"
	noSwarm        = "there is no swarm"
)

// absentVerbs say what to do instead of a command of Docker's that does not exist
// here, or why there is none, by its name or its group's.
var absentVerbs = map[string]string{
	"build":      builtElsewhere,
	"builder":    builtElsewhere,
	"buildx":     builtElsewhere,
	"compose":    "start the workloads one by one, in a network of their own: `bulkhead network create`, then `bulkhead run --network`",
	"login":      loginElsewhere,
	"logout":     loginElsewhere,
	"search":     "a registry's own site does it better",
	"checkpoint": "processes are not checkpointed",
	"context":    "there is no daemon to choose",
	"manifest":   "an index is made where images are built",
	"plugin":     "there are no plugins",
	"trust":      "name an image by its digest: NAME@sha256:…",
	"config":     noSwarm, "node": noSwarm, "secret": noSwarm, "service": noSwarm, "stack": noSwarm, "swarm": noSwarm,
	"image build":   builtElsewhere,
	"volume update": "for cluster volumes, which there are not",
}
