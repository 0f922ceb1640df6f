// Package resolve is the name server of a network: it answers workloads what it
// finds in the leases, and asks upstream servers for the rest. It runs in
// bulkhead-dns, confined as package dns says. What workloads and upstream
// servers send is hostile.
//
// # Which questions go where
//
//	an address of the network, backwards       leases, or NXDOMAIN
//	a name in a lease, with or without         leases; other types than A and
//	  .<network> behind it                       AAAA do not exist: NODATA
//	the same of another network that the       its leases, or NXDOMAIN under its
//	  asking workload is in, too                 .<network>
//	anything else under .<network>             NXDOMAIN, if <network> is not also
//	                                             a top-level domain of the world
//	localhost, *.localhost                     the loopback addresses
//	another name of one label                  NXDOMAIN, but for the types NS, SOA,
//	                                             DS and DNSKEY, which zones have
//	the rest                                   upstream, or NXDOMAIN if there is none
//
// A name of one label is not asked upstream: it is a workload that is not there
// now, which is nobody's business outside, and whose answer would depend on who
// runs the upstream server. Hosts of an intranet that are known by one label are
// found through the search list, which the workload appends itself. A network
// without upstream servers answers NXDOMAIN and not REFUSED, since musl ignores
// a refusal and waits for seconds.
//
// # Who is answered
//
// Only who has a lease: nothing is sent to other addresses, so nothing can be
// reflected to them. Each workload has a rate of questions, a number of
// connections, and a number of questions that wait for upstream and that are asked
// there over TCP; beyond that it hears nothing, SERVFAIL, or the beginning of an
// answer, and others do not notice. What a flood can fill is
// one of several sockets of an address: the kernel chooses by the sender.
//
// # Upstream
//
// Each question is asked from a new socket, so from a port that the kernel
// chose at random, with a random ID and random upper and lower case
// (draft-vixie-dnsext-dns0x20), and an answer must repeat all of it. A server that
// does not repeat the case, or sends much that is no answer, is asked over TCP. If it
// does not repeat the case and refuses TCP, it is asked once more over UDP, and whoever
// guesses has two answers to guess. One that does not answer a workload is asked last
// for that workload for a while. An answer
// is passed on as it came once its structure is sound. There is no cache: the
// host's own resolver has one, and what is not kept cannot be poisoned.
//
// Messages are taken apart here and not by a library, as answers are passed on
// whole: golang.org/x/net/dns/dnsmessage refuses names that exist (a dot within
// a label, as in the mailbox of an SOA record) and does not follow what it
// skips. The tests compare with it.
package resolve
