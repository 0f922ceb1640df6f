// Package sys holds thin wrappers around system calls that the standard
// library lacks. They take and return descriptors, keep none, and decide
// nothing.
package sys
