package probe

// Calls that only x86 has.
var i386Keyctl, x32Keyctl, ioPorts []gateCall
