package workload

import "errors"

// Errors that callers branch on. They are wrapped with what was attempted.
var (
	ErrNotFound    = errors.New("no such workload")
	ErrAmbiguous   = errors.New("more than one workload matches")
	ErrNameTaken   = errors.New("name is in use")
	ErrNotRunning  = errors.New("workload is not running")
	ErrRunning     = errors.New("workload is running")
	ErrUnsupported = errors.New("not supported here")
	// ErrSupervisorLost tells that the supervisor ended without a word, killed
	// or by a reboot, so that nobody saw how the workload ended.
	ErrSupervisorLost = errors.New("supervisor lost")
	// ErrNoPath tells that a path does not exist inside a workload.
	ErrNoPath = errors.New("no such file or directory")
	// ErrNotExecutable and ErrCommandNotFound become exit codes 126 and 127.
	ErrNotExecutable   = errors.New("permission denied")
	ErrCommandNotFound = errors.New("executable file not found")
)
