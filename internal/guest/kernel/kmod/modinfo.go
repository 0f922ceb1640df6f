package kmod

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// info is what a module says of itself.
type info struct {
	release string   // of the kernel it is made for
	depends []string // names of modules
	before  []string // soft dependencies: names or aliases
	aliases []string
}

// info reads a module's own words once.
func (t *Tree) info(name string) (info, error) {
	if in, ok := t.infos[name]; ok {
		return in, nil
	}
	raw, err := t.Read(t.files[name])
	if err != nil {
		return info{}, err
	}
	in, err := parse(raw)
	if err != nil {
		return info{}, fmt.Errorf("module %s: %w", t.files[name], err)
	}
	t.infos[name] = in
	return in, nil
}

// Read returns a module's content, unpacked.
func (t *Tree) Read(file string) ([]byte, error) {
	f, err := t.root.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil {
		return nil, err
	} else if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("module %s is not a plain file", file)
	}
	raw, err := unpack(file, f)
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", file, err)
	}
	return raw, nil
}

// unpack reads a module that is packed as its name says.
func unpack(file string, f io.Reader) ([]byte, error) {
	switch {
	case strings.HasSuffix(file, ".xz"):
		r, err := xz.NewReader(f, maxModule)
		if err != nil {
			return nil, err
		}
		f = r
	case strings.HasSuffix(file, ".zst"):
		r, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxModule))
		if err != nil {
			return nil, err
		}
		defer r.Close()
		f = r
	case strings.HasSuffix(file, ".gz"):
		r, err := gzip.NewReader(f)
		if err != nil {
			return nil, err
		}
		f = r
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxModule+1))
	if err == nil && len(raw) > maxModule {
		err = fmt.Errorf("more than %d bytes", maxModule)
	}
	return raw, err
}

// parse reads the section .modinfo of a module: strings KEY=VALUE, each with a
// zero byte after it (include/linux/moduleparam.h).
func parse(raw []byte) (info, error) {
	file, err := elf.NewFile(bytes.NewReader(raw))
	if err != nil {
		return info{}, fmt.Errorf("not a module: %w", err)
	}
	section := file.Section(".modinfo")
	if section == nil {
		return info{}, errors.New("not a module: it has no section .modinfo")
	}
	// A compressed section could unpack to anything; the kernel's tools make none.
	if section.Flags&elf.SHF_COMPRESSED != 0 || section.Size > maxInfo {
		return info{}, fmt.Errorf("its section .modinfo has %d bytes or is compressed", section.Size)
	}
	data, err := section.Data()
	if err != nil {
		return info{}, fmt.Errorf("read the section .modinfo: %w", err)
	}
	return parseInfo(data), nil
}

func parseInfo(data []byte) info {
	var in info
	for entry := range bytes.SplitSeq(data, []byte{0}) {
		key, value, _ := strings.Cut(string(entry), "=")
		switch key {
		case "vermagic":
			in.release, _, _ = strings.Cut(value, " ")
		case "depends":
			for name := range strings.SplitSeq(value, ",") {
				if name != "" {
					in.depends = append(in.depends, Name(name))
				}
			}
		case "softdep":
			in.before = append(in.before, softBefore(value)...)
		case "alias":
			in.aliases = append(in.aliases, Name(value))
		}
	}
	return in
}

// softBefore returns the words after "pre:" of a soft dependency, as in
// "pre: crc32c post: other".
func softBefore(value string) []string {
	var names []string
	before := false
	for _, word := range strings.Fields(value) {
		switch word {
		case "pre:", "post:":
			before = word == "pre:"
		default:
			if before {
				names = append(names, word)
			}
		}
	}
	return names
}
