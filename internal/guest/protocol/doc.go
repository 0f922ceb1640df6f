// Package protocol is what the host and the agent in a guest say to each
// other, over one byte stream: a virtio-serial port, a vsock connection, a
// pipe in tests. It holds messages and framing only, and imports nothing but
// the standard library and the shared words of package workload.
//
// The byte stream carries many streams. Each frame is
//
//	byte 0    type
//	byte 1    zero
//	byte 2-3  length of the payload, big endian, at most 32 KiB
//	byte 4-7  stream, big endian, 1 to 1024; 0 for Hello
//	…         payload
//
// and a session goes so:
//
//	guest                               host
//	  Hello(version, kernel)       ──>
//	                               <──  Hello(version)
//	                               <──  Open(1)             only the host opens
//	                               <──  Data(1)
//	  Credit(1), Data(1)           ──>                      so many more bytes may come
//	                               <──  End(1)              no more Data from here
//	  Close(1)                     ──>
//	                               <──  Close(1)            number 1 is free again
//
// Data is limited by credit, Window bytes at first, given back as it is read: a
// stream whose reader is slow holds up no other stream, and nobody stores more
// than Window bytes for it. Each side sends Close once, and drops what still
// arrives after it. A number is free for another Open when Close has gone both
// ways, so every frame belongs to exactly one life of a stream, and one that
// belongs to none is a violation.
//
// On a stream there are messages, a byte for the type and three for the length:
//
//	host                                guest
//	  Request(create|adopt|exec)   ──>
//	                               <──  Reply               it is made; or why not, and the end
//	  Stdin, CloseStdin            ──>
//	                               <──  Window              so many more bytes of Stdin may be sent
//	                               <──  CloseStdin          nobody reads it any more
//	  Resize                       ──>
//	                               <──  Stdout, Stderr, Notice
//	  CloseOutput                  ──>                      nobody reads one of them any more
//	                               <──  Exit                the end
//	  Request(hold)                ──>                      mounts what a later volume serves
//	                               <──  Reply               and the end
//	  Request(volume)              ──>
//	                               <──  Reply               then FUSE messages, see fuse(4),
//	                               <──  …                   requests from the guest, replies
//	  …                            ──>                      from the host, until either closes
//	  Request(read-files|changes)  ──>
//	                               <──  Stdout              a tar stream, or workload.WriteChanges'
//	                               <──  Reply               whether it is whole, and the end
//	  Request(write-files)         ──>
//	  Stdin, CloseStdin            ──>                      a tar stream, limited by the stream's credit alone
//	                               <──  Reply               at any time, and the end
//	  Request(anything else)       ──>
//	                               <──  Reply               and the end
//
// Stdin has a window of its own, so that the agent never waits for a process
// before it reads the next message. The stream of create is the workload's
// life: when it ends, the agent kills and removes the workload. Relay carries
// a stream over a socket, one connection for each, to where another process
// needs it.
//
// Both sides take the other for hostile. Every length, number and order is
// checked; a violation ends the session, or the stream if it is in a message,
// with an error that wraps ErrProtocol.
package protocol
