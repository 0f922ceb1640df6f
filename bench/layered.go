package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// The images, named so that no engine asks a registry for them.
const (
	imageName   = "localhost/bulkhead-bench:small"
	layeredName = "localhost/bulkhead-bench:layered"
)

// The layered image: a root file system and above it layers of many small files.
const (
	layerCount    = 8
	filesPerLayer = 500
	bytesPerFile  = 8 << 10
	layeredAbout  = "busybox and eight layers of 500 files of 8 KiB, uncompressed, 35 MB."
)

// smallArchive writes the root file system as an image of one layer.
func smallArchive(path, rootfs string) error {
	base, err := tarTree(rootfs)
	if err != nil {
		return err
	}
	return writeArchive(path, imageName, [][]byte{base})
}

// layeredArchive writes an image of several layers. Its content is the same at
// every call; half of each file cannot be compressed.
func layeredArchive(path, rootfs string) error {
	base, err := tarTree(rootfs)
	if err != nil {
		return err
	}
	layers := [][]byte{base}
	random := rand.NewChaCha8([32]byte{1})
	content := make([]byte, bytesPerFile)
	for l := range layerCount {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i := range filesPerLayer {
			random.Read(content[:bytesPerFile/2])
			name := fmt.Sprintf("srv/layer%d/dir%02d/file%03d", l, i%20, i)
			h := &tar.Header{Name: name, Mode: 0o644, Size: bytesPerFile, ModTime: time.Unix(1_700_000_000, 0), Format: tar.FormatPAX}
			if err := w.WriteHeader(h); err != nil {
				return err
			}
			if _, err := w.Write(content); err != nil {
				return err
			}
		}
		if err := w.Close(); err != nil {
			return err
		}
		layers = append(layers, b.Bytes())
	}
	return writeArchive(path, layeredName, layers)
}

// tarTree is a directory as a layer, owned by root.
func tarTree(dir string) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		link := ""
		if info.Mode()&os.ModeSymlink != 0 {
			if link, err = os.Readlink(path); err != nil {
				return err
			}
		}
		h, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		h.Name = strings.TrimPrefix(path, dir+"/")
		h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
		if info.IsDir() {
			h.Name += "/"
		}
		if err := w.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, f)
		return err
	})
	if err != nil {
		return nil, err
	}
	return b.Bytes(), w.Close()
}

// writeArchive writes layers in the form of docker save, which all engines load.
func writeArchive(path, name string, layers [][]byte) error {
	type rootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
	config := struct {
		Architecture string         `json:"architecture"`
		OS           string         `json:"os"`
		Config       map[string]any `json:"config"`
		RootFS       rootFS         `json:"rootfs"`
	}{runtime.GOARCH, "linux", map[string]any{"Env": []string{"PATH=/bin"}, "Cmd": []string{"/bin/sh"}}, rootFS{Type: "layers"}}

	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	add := func(name string, content []byte) error {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			return err
		}
		_, err := w.Write(content)
		return err
	}
	var files []string
	for _, l := range layers {
		sum := sha256.Sum256(l)
		id := hex.EncodeToString(sum[:])
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, "sha256:"+id)
		files = append(files, id+"/layer.tar")
		if err := add(id+"/layer.tar", l); err != nil {
			return err
		}
	}
	text, err := json.Marshal(config)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	configName := hex.EncodeToString(sum[:]) + ".json"
	if err := add(configName, text); err != nil {
		return err
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": configName, "RepoTags": []string{name}, "Layers": files}})
	if err != nil {
		return err
	}
	if err := add("manifest.json", manifest); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return f.Close()
}
