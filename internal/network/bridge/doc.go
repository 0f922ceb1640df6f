// Package bridge makes the host's half of networks: bridges, addresses,
// interfaces, firewall rules, published ports, and a name server for each
// network. It needs root and is imported by commands only; supervisors reach it
// through package attach.
//
// What is kept of networks:
//
//	root/networks/<name>.json      what was asked of a network; on disk before anybody
//	                               is told of it
//	root/networks/<name>.ids       the user IDs of its name server
//	run/networks/                  gone after a reboot, like the bridges themselves
//	  lock                         held while networks, rules or leases change
//	  members/<id>-<network>       what one workload has in one network: network.Lease
//	  of/<network>/leases/<address>  the same file once more, by link(2), which fails
//	                               where there is one: an address has one owner
//	  of/<network>/cursor          the addresses that were handed out last
//	  of/<network>/used/<address>  a link to the ID of the owner who had it out of turn
//	  of/<network>/dns/            the name server's record
//	  apart/<id>                   the user ID of a workload's process of the user network
//	  forwarding                   interfaces that did not forward before we came
//	  flushed                      rules were missing, and nobody was told
//
// A member's file is the journal. It is complete before the first interface, rule
// or address of the workload is made, and goes when the last is gone, so that an
// address is not handed out again while something names it. An interface, a rule
// or an address without a member's file belongs to nobody and is removed by
// whoever finds it. Repair makes bridges and rules anew from what is recorded.
package bridge
