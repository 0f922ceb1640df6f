// Package rotated reads files of lines that somebody else appends to and renames
// when they are full, to the end and over any number of renamings:
//
//	log, the newest ──full──> log.1 ──> log.2 ──> … ──> gone
//
// Nothing is added to a file once the next one is there: whoever writes sees to
// that. A reader that stalls longer than the files last misses what was in
// between, and nobody waits for it.
package rotated

import (
	"bufio"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
)

// Name returns the path of the file that was path n renamings ago.
func Name(path string, n int) string {
	if n == 0 {
		return path
	}
	return path + "." + strconv.Itoa(n)
}

// Files are the files of one log, while they are read.
type Files struct {
	path  string
	most  int
	long  int
	files []*os.File // still to be read, oldest first
}

// Open opens what there is of at most most files. Lines longer than longest, in
// bytes with their end, are passed over.
func Open(path string, most, longest int) (*Files, error) {
	f := &Files{path: path, most: most, long: longest}
	var err error
	if f.files, err = f.since(nil); err != nil {
		return nil, err
	}
	return f, nil
}

// OpenEnd is Open for what will be added from now on.
func OpenEnd(path string, most, longest int) (*Files, error) {
	f := &Files{path: path, most: most, long: longest}
	for i := range most { // the newest may have been renamed a moment ago
		newest, err := os.Open(Name(path, i))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if _, err = newest.Seek(0, io.SeekEnd); err != nil {
			newest.Close()
			return nil, err
		}
		f.files = []*os.File{newest}
		return f, nil
	}
	return f, nil
}

// Close closes the files.
func (f *Files) Close() {
	for _, file := range f.files {
		file.Close()
	}
	f.files = nil
}

// since opens the files that came after one, or all. It begins with the newest:
// if they are renamed meanwhile, the same turns up again, and what is newer still
// will be found after it.
func (f *Files) since(one *os.File) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, file := range files {
				file.Close()
			}
			files = nil
		}
	}()
	for i := range f.most {
		file, err := os.Open(Name(f.path, i))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return files, err
		}
		if one != nil && same(file, one) {
			file.Close()
			break
		}
		if len(files) > 0 && same(file, files[0]) {
			file.Close()
			continue
		}
		files = slices.Insert(files, 0, file)
	}
	return files, nil
}

func same(a, b *os.File) bool {
	x, err1 := a.Stat()
	y, err2 := b.Stat()
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// Preview calls line for each whole line that there is now. It is for what was
// opened by Open and not read yet, and leaves it so.
func (f *Files) Preview(line func([]byte) error) error {
	for _, file := range f.files {
		if err := lines(file, f.long, line); err != nil {
			return err
		}
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	return nil
}

// Drain calls line for each whole line, without its end, that was not read yet.
// The slice is good during the call. What is read later goes on where Drain
// stopped.
func (f *Files) Drain(line func([]byte) error) error {
	for {
		if len(f.files) == 0 {
			var err error
			if f.files, err = f.since(nil); err != nil || len(f.files) == 0 {
				return err
			}
		}
		// Whether nothing will be added must be known before the end is seen.
		file := f.files[0]
		if len(f.files) == 1 {
			next, err := f.since(file)
			if err != nil {
				return err
			}
			f.files = append(f.files, next...)
		}
		if err := lines(file, f.long, line); err != nil {
			return err
		}
		if len(f.files) == 1 {
			return nil
		}
		file.Close()
		f.files = f.files[1:]
	}
}

// lines calls f for each whole line from the file's position on, which it leaves
// behind the last one.
func lines(file *os.File, longest int, f func([]byte) error) error {
	pos, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	b := bufio.NewReaderSize(file, longest)
	for skipping := false; ; {
		line, err := b.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			skipping = true
			pos += int64(len(line))
			continue
		}
		if errors.Is(err, io.EOF) {
			_, err := file.Seek(pos, io.SeekStart)
			return err
		}
		if err != nil {
			return err
		}
		pos += int64(len(line))
		if !skipping {
			if err := f(line[:len(line)-1]); err != nil {
				return err
			}
		}
		skipping = false
	}
}
