package cgroup

import (
	"encoding/json"
	"errors"
	"os"
)

// SavePath writes a manager's path to a file, for OpenSaved: before Create, so that
// whoever comes after a crash finds what there is.
func SavePath(file, path string) error {
	b, err := json.Marshal(path)
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}

// OpenSaved loads the manager whose path SavePath wrote to a file. It returns nil
// without an error where nothing is left of it: no cgroup, no file, or one whose
// writing was cut short, before there could be a cgroup.
func OpenSaved(file string) (*Manager, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var path string
	if json.Unmarshal(b, &path) != nil || path == "" {
		return nil, nil
	}
	m, err := Load(path, Options{})
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return m, err
}
