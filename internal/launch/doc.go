// Package launch makes a process from a list of system calls.
//
// A Program is data: a list of steps, each one system call with its
// arguments, the actor that performs it, and the reason for it. A planner
// (package container) builds it; it can be printed, compared with a golden
// file and audited before anything happens. Run then performs it.
//
//	Host   the calling process: one thread, locked, never reused
//	  │ clone
//	  ├──────────▶ Stage   raw-forked child: makes or joins the namespaces
//	  │              │ clone(CLONE_PARENT)
//	  │              ├──────────▶ Init   the future first process: execve
//	  │              └ exit
//	  │ clone(CLONE_FILES)
//	  └──────────▶ Mounter   only where proc needs a caller inside its pid
//	                         namespace (before Linux 6.17)
//
// Host steps run in ordinary Go. The steps of the children are compiled before
// the fork into an array that one small function walks with raw system calls:
// it allocates nothing and never enters the Go runtime, so no second program
// of ours is executed inside a half-made container. See walk_unsafe.go.
//
// Host and children share a pipe, the status pipe. A child sends 16-byte
// records over it:
//
//	┌────────────────────┬────────────────────┐
//	│ value, 8 bytes     │ mark, 8 bytes      │
//	└────────────────────┴────────────────────┘
//
// With a mark below 2^32 the record is a failure: value is the index of the step
// and mark the error number. Otherwise it is a message, whose number is in the
// upper half of mark, such as "maps wanted" or the process ID of Init; an Await
// step waits for it. Children run side by side, so messages may come in another
// order than they are awaited in. End of file means that the last child has
// executed its program (the descriptor is close-on-exec) or died.
//
// A result may be kept in a slot, which later steps use as an argument. Slots
// that hold descriptors are closed by steps that Build adds after their last
// use.
//
// A Recording is something smaller: a child that makes calls whatever comes of
// them, to find out what they do.
package launch
