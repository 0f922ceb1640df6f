package main

// differentVerbs say how a command differs.
var differentVerbs = map[string]string{
	"info":          noDaemon,
	"system info":   noDaemon,
	"system df":     "the types are Images, Workloads, Volumes, Tenants, Kernels and Templates, where Docker has Images, Containers, Local Volumes and Build Cache",
	"version":       "there is no server",
	"ps":            "the table has a column BOUNDARY, and its first is called ID",
	"stats":         "the first column of the table is called ID",
	"history":       noImageColumn,
	"image history": noImageColumn,
	"network ls":    "host and none are modes of `run`, not networks; the table has SUBNETS in place of SCOPE",
	"inspect":       ownRecords,
	"image inspect": ownRecords,
}

// differentFlags say how a flag differs, by "COMMAND --flag".
var differentFlags = map[string]string{
	"run --group-add":        "by number only",
	"create --group-add":     "by number only",
	"run --userns":           "private is the default; host is a weakening that inspect shows",
	"create --userns":        "private is the default; host is a weakening that inspect shows",
	"run --privileged":       "for --systemd in a virtual machine only",
	"create --privileged":    "for --systemd in a virtual machine only",
	"exec --privileged":      "is refused: a process has no more rights than its workload",
	"volume create --opt":    "is refused: a volume is a plain directory",
	"ps --filter":            "ancestor is the image itself, not one that it was made from; there is no is-task and no isolation",
	"events --filter":        "there is no swarm and no daemon to name",
	"system events --filter": "there is no swarm and no daemon to name",
	"images --format":        storedSize,
	"image ls --format":      storedSize,
	"system df --verbose":    "tables only, not together with --format",
	"pull --quiet":           "prints the ID of the image, not its name",
	"image pull --quiet":     "prints the ID of the image, not its name",

	"run --device-write-bps":     writeRates,
	"create --device-write-bps":  writeRates,
	"run --device-write-iops":    writeRates,
	"create --device-write-iops": writeRates,
	"run --blkio-weight":         weights,
	"create --blkio-weight":      weights,
	"update --blkio-weight":      weights,
}

const (
	noDaemon      = "other fields: there is no daemon to describe"
	storedSize    = ".Size is that of the image as it came; .VirtualSize is unpacked, as in the table"
	noImageColumn = "the table has no column IMAGE; the placeholder is .ID"
	ownRecords    = "the records of this project, with fields of their own; `--format` takes their names. A label that may be missing is asked for by `index`: `.labels.NAME` is an error without it"
)

// Docker sets these limits, and says nothing of what they do not hold.
const (
	writeRates = "is refused on cgroup v1, where it would not hold for buffered writes"
	weights    = "is refused where no disk's scheduler goes by weights"
)

// absentFlags say why there is no such flag, by "COMMAND --flag" or "--flag".
var absentFlags = map[string]string{
	"logs --details":               "a log has no labels",
	"commit --pause":               "`pause` or stop it first: a machine that is paused cannot be read from",
	"rm --link":                    "there are no links; workloads of one network find each other by name",
	"create --attach":              "give it to `start`",
	"--disable-content-trust":      "name an image by its digest: NAME@sha256:…",
	"pull --all-tags":              "name the tags that are wanted",
	"image pull --all-tags":        "name the tags that are wanted",
	"push --all-tags":              "name the tags that are wanted",
	"image push --all-tags":        "name the tags that are wanted",
	"push --platform":              "what was pulled or loaded is pushed; choose with `pull --platform`",
	"image push --platform":        "what was pulled or loaded is pushed; choose with `pull --platform`",
	"--tree":                       "`image inspect` shows an image's platforms",
	"--no-prune":                   "layers that no image needs go with the next prune",
	"--size":                       "`ps -s` shows sizes",
	"--platform":                   "an image here is of one platform; choose it with `pull --platform`",
	"network create --aux-address": "reserve addresses by giving workloads theirs with `run --ip`, or a smaller `--ip-range`",
	"network create --config-from": "there is no swarm", "network create --config-only": "there is no swarm",
	"network create --ingress": "there is no swarm", "network create --scope": "there is no swarm",
	"network create --ipam-driver": "there is one, which needs no naming", "network create --ipam-opt": "it has no options",
	"--driver-opt":        "interfaces have no options beside their addresses",
	"--gw-priority":       "the first network that is named has the default route",
	"--link":              "there are no links; workloads of one network find each other by name",
	"--link-local-ip":     "link-local addresses are the kernel's",
	"volume ls --cluster": "there is no swarm",
	"--availability":      "for cluster volumes, which there are not", "--group": "for cluster volumes, which there are not",
	"--limit-bytes": "for cluster volumes, which there are not", "--required-bytes": "for cluster volumes, which there are not",
	"--scope": "for cluster volumes, which there are not", "--secret": "for cluster volumes, which there are not",
	"--sharing": "for cluster volumes, which there are not", "--topology-preferred": "for cluster volumes, which there are not",
	"--topology-required": "for cluster volumes, which there are not", "volume create --type": "for cluster volumes, which there are not",
	"stop --timeout":    "the flag is called --time, as in older versions of Docker; -t is the same",
	"restart --timeout": "the flag is called --time, as in older versions of Docker; -t is the same",
	"--tls":             "there is no daemon to reach",
	"--checkpoint":      "processes are not checkpointed",
	"--checkpoint-dir":  "processes are not checkpointed",
	"run --cpu-count":   "for Windows", "create --cpu-count": "for Windows",
	"run --cpu-percent": "for Windows", "create --cpu-percent": "for Windows",
	"run --io-maxbandwidth": "for Windows", "create --io-maxbandwidth": "for Windows",
	"run --io-maxiops": "for Windows", "create --io-maxiops": "for Windows",
}
