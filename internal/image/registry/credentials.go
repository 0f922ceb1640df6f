package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
)

// files is a keychain of credential files in Docker's format, which Podman
// shares. The first file with an entry for the registry decides.
type files []string

// DefaultCredentials reads the files that Docker and Podman write, anew for
// each registry, and asks the credential helpers that they name:
//
//	$REGISTRY_AUTH_FILE
//	$DOCKER_CONFIG/config.json
//	$XDG_RUNTIME_DIR/containers/auth.json, or /run/containers/UID/auth.json
//	$XDG_CONFIG_HOME/containers/auth.json, or ~/.config/containers/auth.json
//	~/.docker/config.json
func DefaultCredentials() authn.Keychain {
	var list files
	if f := os.Getenv("REGISTRY_AUTH_FILE"); f != "" {
		list = append(list, f)
	}
	if d := os.Getenv("DOCKER_CONFIG"); d != "" {
		list = append(list, filepath.Join(d, "config.json"))
	}
	runtimeDir := os.Getenv("XDG_RUNTIME_DIR")
	if runtimeDir == "" {
		runtimeDir = filepath.Join("/run/containers", strconv.Itoa(os.Getuid()))
		list = append(list, filepath.Join(runtimeDir, "auth.json"))
	} else {
		list = append(list, filepath.Join(runtimeDir, "containers", "auth.json"))
	}
	home, _ := os.UserHomeDir()
	if d := os.Getenv("XDG_CONFIG_HOME"); d != "" {
		list = append(list, filepath.Join(d, "containers", "auth.json"))
	} else if home != "" {
		list = append(list, filepath.Join(home, ".config", "containers", "auth.json"))
	}
	if home != "" {
		list = append(list, filepath.Join(home, ".docker", "config.json"))
	}
	return list
}

// FileCredentials reads one file only.
func FileCredentials(path string) authn.Keychain { return files{path} }

// maxCredentialFile bounds a credential file in bytes.
const maxCredentialFile = 1 << 20

// Resolve implements authn.Keychain.
func (list files) Resolve(res authn.Resource) (authn.Authenticator, error) {
	for _, path := range list {
		raw, err := readFile(path)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
			continue
		}
		if err != nil {
			return nil, err
		}
		cfg, err := config.LoadFromReader(bytes.NewReader(raw))
		if err != nil {
			return nil, fmt.Errorf("%s is not a credential file: %w", path, err)
		}
		for _, key := range keys(res) {
			auth, err := cfg.GetAuthConfig(key)
			if err != nil {
				return nil, fmt.Errorf("%s: credential helper for %s: %w", path, key, err)
			}
			// The server's name alone is no credential.
			auth.ServerAddress = ""
			if auth == (types.AuthConfig{}) {
				continue
			}
			return authn.FromConfig(authn.AuthConfig{
				Username: auth.Username, Password: auth.Password, Auth: auth.Auth,
				IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken,
			}), nil
		}
	}
	return authn.Anonymous, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxCredentialFile+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxCredentialFile {
		return nil, fmt.Errorf("%s is longer than %d bytes", path, maxCredentialFile)
	}
	return raw, nil
}

// keys lists the entries that may hold credentials, the most precise first:
// Podman also writes "registry/namespace".
func keys(res authn.Resource) []string {
	host := res.RegistryStr()
	var out []string
	for s := res.String(); s != host && strings.Contains(s, "/"); s = s[:strings.LastIndexByte(s, '/')] {
		out = append(out, s)
	}
	if host == "index.docker.io" {
		for i, k := range out {
			out[i] = "docker.io" + strings.TrimPrefix(k, host)
		}
		return append(out, authn.DefaultAuthKey, "docker.io")
	}
	return append(out, host)
}
