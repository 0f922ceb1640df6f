// Package filetree reads a part of a directory tree as a tar stream, unpacks a
// tar stream into one, and compares an overlay's layers, while somebody who
// wants to be let out changes the tree: a workload, as root inside, that swaps
// links and renames directories as it is being copied.
//
// Nothing of the tree is executed or loaded (CVE-2019-14271), and no path is
// looked at first and opened afterwards (CVE-2018-15664). A path is resolved
// by one openat2(2) with the tree's root as its root; from there on each step
// is one name in a directory that is held by its descriptor, and no link is
// followed but by another openat2 within the same bounds:
//
//	Open(root, path) ── O_PATH ──▶ Read ──▶ tar
//	                                │ names of a directory, each opened by its parent's descriptor
//	tar ──▶ Write ── a stack of open directories ──▶ *at calls with O_NOFOLLOW, O_EXCL
//
// What arrives as a tar stream is hostile as well: it names no place outside of
// the directory that it is unpacked in, whatever links it brings or finds there,
// and on a host none outside of what was asked for, which is one name in it.
//
// Owners are translated between the host's IDs and a workload's own. The same
// code runs on the host, in a guest's agent, and on the user's side of a copy.
package filetree
