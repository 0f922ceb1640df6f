// Package serve answers FUSE requests for one directory or file of the host.
// The requests come from the kernel of a guest, which is hostile: any of them
// may be anything. So may be the processes of the host and of other guests
// that change the same files meanwhile.
//
//	stream ─▶ reader ─▶ N workers ─▶ system calls on the volume
//	       ◀──────── replies, one at a time
//
// It runs in a helper process whose root directory is the volume, so a mistake
// here reaches the volume and nothing else. What the package itself holds to:
//
//   - A name is one component. It is checked (no slash, no "." or "..") and
//     looked up beneath a descriptor of its directory with openat2(2),
//     RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, or by a call that does not follow
//     the last component. Symbolic links are data; the guest follows them.
//   - A node is where the guest found a file (parent and name) and which file
//     it was (mount, device, inode, time of birth). Before a node is used the
//     file is compared; if another is there by now, the answer is ESTALE, upon
//     which the guest's kernel looks the name up again. Nothing needs /proc or
//     open_by_handle_at(2), and files need no descriptor while not open.
//   - Descriptors, nodes, requests in flight and the size of each are bounded. Old
//     nodes are forgotten beyond the bound, whatever the guest thinks of them:
//     their numbers are never used again and answer ESTALE.
//   - No request opens anything but regular files and directories, so none waits
//     for the other end of a FIFO.
//
// Ownership: user and group IDs of the guest's initial user namespace are those
// of the host plus Options.IDBase, as an ID-mapped mount would show them.
//
// Why no library: github.com/hanwen/go-fuse/v2 reads requests from a mounted
// /dev/fuse, one for each read(2), and believes them, since they come from the
// kernel it runs on; what remains to be written above its raw interface, nodes,
// handles, limits and translation, is most of this package, and the decoding
// that it saves is the part that has to be distrustful.
package serve
