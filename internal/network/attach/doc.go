// Package attach is how a supervisor gets its workload into networks. It holds
// no netlink and no nftables: those are in the program bulkhead-network, which
// package attach starts for as long as that takes, and talks to over a socket:
//
//	supervisor                         bulkhead-network
//	  Request                     ──>
//	                              <──  Prepared, with taps and reserved ports
//	  the namespace, or with taps nothing ─>
//	                              <──  Done
//	  Release, if it comes soon   ──>
//	                              <──  Done, and the end
//
// A workload that runs joins another network in the same way, and parts with one
// by a Request whose answer is Prepared, after which everything works.
//
// Prepared says which addresses the workload has, where it asks for names, and
// which address the host has for it, while the host's ends of its
// interfaces exist and its ports are reserved; after Done everything works. A
// reservation is a bound socket, which the supervisor keeps: when it dies, the
// kernel frees the port. What else is left then, Release removes. The program ends
// with the conversation; for Release another one is started if it has.
package attach
