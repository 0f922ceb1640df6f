// Package container makes hardened Linux containers. It turns an OCI runtime
// specification into a launch program, runs the program, and then signals,
// executes in, and removes what it made.
//
//	runtime spec ─┐
//	root, facts  ─┴─▶ plan ──▶ launch.Program ──▶ Run ──▶ Container
//
// The plan is made in parts, by plan.go (ID maps, the order of things), with
// plan_namespaces.go, plan_mounts.go (the mount tree) and plan_process.go
// (everything between the clone and execve, shared with exec). Planning opens
// files to look at the root file system but changes nothing.
//
// With a user namespace, which is the default of the engine, the mounts are
// made by the host's thread in a mount namespace A that belongs to the initial
// user namespace, after the thread pivots into the new root. The first process
// copies A when it unshares its own mount namespace; crossing from the initial
// user namespace into its own locks every mount (mount_namespaces(7)): no
// capability inside can undo read-only, lift a mask or uncover what is below.
package container
