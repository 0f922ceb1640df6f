package comparing

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/capped"
)

// talker is a program of the image that runs while others do, and is talked to by
// lines. Its methods are called by one goroutine.
type talker struct {
	r      runner
	name   string
	ctx    context.Context
	cancel context.CancelFunc
	cmd    *exec.Cmd
	in     io.WriteCloser
	pipe   *os.File // what the program says
	out    *bufio.Reader
	stderr *capped.Buffer
	over   bool
	err    error // how it ended, once it is over
}

// keeper is a driver that has to know what runs by a command while another one ends.
type keeper interface {
	keep(name string, cmd *exec.Cmd)
}

// maxSaid is how long a line may be that a program says, in bytes.
const maxSaid = 4096

// talk starts a program of the image. Whoever does ends it.
func talk(ctx context.Context, r runner, program []string) (*talker, error) {
	t := &talker{r: r, name: newName("talk"), stderr: &capped.Buffer{Max: maxErrors}}
	t.ctx, t.cancel = context.WithCancel(ctx)
	if err := t.start(program); err != nil {
		t.cancel()
		return nil, err
	}
	return t, nil
}

func (t *talker) start(program []string) (err error) {
	if t.cmd, err = t.r.command(t.ctx, t.name, program); err != nil {
		return err
	}
	out, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer w.Close()
	t.cmd.Stdout, t.cmd.Stderr = w, t.stderr
	if t.in, err = t.cmd.StdinPipe(); err == nil {
		err = t.r.launch(t.cmd)
	}
	if err != nil {
		out.Close()
		return err
	}
	t.pipe, t.out = out, bufio.NewReaderSize(out, maxSaid)
	if k, ok := t.r.(keeper); ok {
		k.keep(t.name, t.cmd)
	}
	return nil
}

// say writes a line to the program. Whether that ended is seen when it shall answer.
func (t *talker) say(line string) { _, _ = io.WriteString(t.in, line+"\n") }

// hear returns the next line. A program that ended, says nothing for so long, or more
// than a line may have, is over.
func (t *talker) hear(d time.Duration) ([]byte, error) {
	if t.over {
		return nil, t.err
	}
	line, err := t.read(d)
	if err == nil {
		return line, nil
	}
	if !errors.Is(err, io.EOF) {
		t.cancel()
	}
	ended := t.finish(d)
	switch {
	case !errors.Is(err, io.EOF):
		t.err = err
	case ended != nil:
		t.err = ended
	default:
		t.err = errors.New("the program inside ended early")
	}
	return nil, t.err
}

func (t *talker) read(d time.Duration) ([]byte, error) {
	if err := t.pipe.SetReadDeadline(time.Now().Add(d)); err != nil {
		return nil, err
	}
	line, err := t.out.ReadSlice('\n')
	switch {
	case t.ctx.Err() != nil:
		return nil, t.ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("the program inside said nothing for %v", d)
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, fmt.Errorf("the program inside said a line of more than %d bytes", maxSaid)
	}
	return line, err
}

// end ends the program's input, and returns the last line that it says, once it has
// ended, for which it has so long.
func (t *talker) end(d time.Duration) ([]byte, error) {
	if t.over {
		return nil, t.err
	}
	t.in.Close()
	line, err := t.read(d)
	last := append([]byte(nil), line...)
	if err == nil {
		if _, err = t.read(d); err == nil {
			err = errors.New("the program inside said more than it should")
		}
	}
	if !errors.Is(err, io.EOF) {
		t.cancel()
	}
	if ended := t.finish(d); errors.Is(err, io.EOF) {
		err = ended
	}
	t.err = err
	return last, err
}

// finish waits for the end of the program, for so long, and makes sure that nothing of
// it is left.
func (t *talker) finish(d time.Duration) error {
	t.over = true
	t.in.Close()
	t.pipe.Close() // what it would say now nobody hears
	late := time.AfterFunc(d, t.cancel)
	err := failure(t.ctx, t.cmd, t.cmd.Wait(), t.stderr.String())
	late.Stop()
	if left := t.r.ended(context.WithoutCancel(t.ctx), t.name, err); left != nil {
		err = errors.Join(err, fmt.Errorf("what it left could not be removed: %w", left))
	}
	t.cancel()
	return err
}
