package probe

// Calls that only x86 has.
var i386Keyctl, i386Sockets, x32Keyctl, ioPorts []gateCall
