package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/safetext"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/seed-f5e3b97b/bulkhead/internal/report/page"
	"github.com/spf13/cobra"
)

// writeReport writes a document: as a page into a file, if there is one, and to
// standard output as JSON or as text. By then nothing may be left to be done:
// writing to a closed pipe ends this program, so that the page comes first.
func (a *app) writeReport(d *report.Document, html string, asJSON bool, text func(w io.Writer) error) error {
	b, err := d.Encode() // also where it is not shown: it checks every text
	if err != nil {
		return err
	}
	page := writePage(html, d)
	if asJSON {
		_, err = a.out.Write(b)
	} else {
		w := safetext.NewWriter(a.out)
		err = errors.Join(text(w), w.Close())
	}
	return errors.Join(err, page)
}

// htmlFlag adds --html, the file of a report as a page.
func htmlFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "html", "", "write the report as a page for browsers, too, into a `file`")
	_ = cmd.MarkFlagFilename("html", "html", "htm")
}

// checkPage refuses a file that a page could not be written to, before anything is
// looked at. "" is no file.
func checkPage(name string) error {
	if name == "" {
		return nil
	}
	const fix = "give the name of a file in a directory that exists"
	if name == "-" {
		return advice.New("--html -: standard output has the report as text", fix)
	}
	switch info, err := os.Stat(name); {
	case err == nil && !info.Mode().IsRegular():
		return advice.New(fmt.Sprintf("--html %s: this is no regular file", name), fix)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return advice.Wrap(err, fmt.Sprintf("--html %s: %v", name, errors.Unwrap(err)), fix)
	}
	dir := filepath.Dir(name)
	switch info, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return advice.Wrap(err, fmt.Sprintf("--html %s: there is no directory %s", name, dir), fix)
	case err != nil:
		return advice.Wrap(err, fmt.Sprintf("--html %s: %v", name, errors.Unwrap(err)), fix)
	case !info.IsDir():
		return advice.New(fmt.Sprintf("--html %s: %s is no directory", name, dir), fix)
	}
	return nil
}

// writePage writes a document into a file as a page, whole or not at all: readers
// see the earlier file until then. "" is no file.
func writePage(name string, d *report.Document) (err error) {
	if name == "" {
		return nil
	}
	var b bytes.Buffer
	if err := page.Write(&b, d); err != nil {
		return err
	}
	// Beside the file, so that it can be renamed. A new name that nobody can guess:
	// the directory may be anybody's. The mode is what the user's umask leaves.
	next := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+"."+rand.Text())
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("--html %s: %w", name, err)
	}
	_, err = f.Write(b.Bytes())
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(next, name)
	}
	if err != nil {
		return fmt.Errorf("--html %s: %w", name, errors.Join(err, os.Remove(next)))
	}
	return nil
}
