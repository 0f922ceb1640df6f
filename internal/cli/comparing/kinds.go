package comparing

import (
	"slices"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// kind is what is the same of a measure for all ways.
type kind struct {
	id, name string
	unit     report.Unit
	better   report.Better
	group    string // of Groups, "" for what is always found out
}

// kinds are all measures, in the order in which they are shown.
var kinds = append([]kind{
	{"kernel.name", "kernel", "", "", ""},
	{"kernel.shared", "is it the host's", "", "", ""},
	{"system.name", "operating system", "", "", ""},
	{"system.init", "process 1", "", "", ""},
	{"isolation.mechanism", "mechanism in force", "", "", ""},
	{"start.output", "to first output", report.Seconds, report.Less, Start},
	{"start.exit", "to exit", report.Seconds, report.Less, Start},
	{"start.cold-output", "to first output, cold", report.Seconds, report.Less, Start},
	{"start.cold-exit", "to exit, cold", report.Seconds, report.Less, Start},
	{"image.size", "image on disk", report.Bytes, report.Less, ""},
	{"image.kernel", "kernel beside it", report.Bytes, report.Less, ""},
	{"memory.beside", "host processes", report.Bytes, report.Less, Memory},
	{"memory.daemons", "shared with others", report.Bytes, report.Less, Memory},
	{"guest.memory", "used", report.Bytes, report.Less, Memory},
	{"density.idle", "idle at once", report.Number, "", Density},
	{"density.each", "memory of each", report.Bytes, report.Less, Density},
	{"density.room", "room for", report.Number, report.More, Density},
	{"calls.getpid", "getpid", report.Seconds, report.Less, Inside},
	{"calls.file", "open+read+close", report.Seconds, report.Less, Inside},
	{"calls.futex", "futex wake-up", report.Seconds, report.Less, Inside},
	{"calls.map", "mmap+touch", report.Seconds, report.Less, Inside},
	{"calls.spawn", "fork+exec+wait", report.Seconds, report.Less, Inside},
	{"calls.pipe", "pipe trip", report.Seconds, report.Less, Inside},
	{"calls.tcp", "TCP trip", report.Seconds, report.Less, Inside},
	{"files.write", "write and sync", report.BytesPerSecond, report.More, Inside},
	{"files.read", "read from the cache", report.BytesPerSecond, report.More, Inside},
	{"files.create", "files made and removed", report.PerSecond, report.More, Inside},
	{"network.published", "into a published port", report.BytesPerSecond, report.More, Network},
	{"network.roundtrip", "round trip through it", report.Seconds, report.Less, Network},
	{"work.compress", "compress", report.BytesPerSecond, report.More, Inside},
	{"work.hash", "SHA-256", report.BytesPerSecond, report.More, Inside},
	{"compat.features", "features that work", report.Number, report.More, Inside},
}, neighbourKinds()...)

func kindOf(id string) kind {
	return kinds[slices.IndexFunc(kinds, func(k kind) bool { return k.id == id })]
}
