package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
)

// files is a keychain of credential files in Docker's format, which Podman
// shares. The first file with an entry for the repository decides.
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
		for _, e := range entries(res, cfg.AuthConfigs) {
			// Docker takes an entry for the host's whose path is another's: it
			// sees no entry but this.
			one := *cfg
			one.AuthConfigs = map[string]types.AuthConfig{}
			if auth, ok := cfg.AuthConfigs[e.key]; ok {
				one.AuthConfigs[e.key] = auth
			}
			if !e.whole {
				one.CredentialsStore = "" // it knows hosts only
			}
			auth, err := one.GetAuthConfig(e.key)
			if err != nil {
				return nil, fmt.Errorf("%s: credential helper for %s: %w", path, e.key, err)
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

// entry is one that may hold credentials.
type entry struct {
	key   string // as the file has it
	whole bool   // it is for all of the registry
}

// entries lists those for a repository, the most precise first: a key with a path
// is for what lies below it, and for nothing else of the registry
// (containers-auth.json(5)). Some are in no file: a helper may know them.
func entries(res authn.Resource, have map[string]types.AuthConfig) []entry {
	byScope := make(map[string][]string)
	for _, key := range slices.Sorted(maps.Keys(have)) {
		byScope[scope(key)] = append(byScope[scope(key)], key)
	}
	host := scope(res.RegistryStr())
	var out []entry
	for s := scope(res.String()); ; s = s[:strings.LastIndexByte(s, '/')] {
		keys := []string{s}
		if s == "docker.io" {
			keys = []string{authn.DefaultAuthKey, s} // Docker's key for it
		}
		for _, key := range byScope[s] {
			if !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
		for _, key := range keys {
			out = append(out, entry{key, s == host})
		}
		if s == host || !strings.Contains(s, "/") {
			return out
		}
	}
}

// scope is the registry, or the path below it, that a key of a credential file is
// for. Old versions of Docker wrote "https://registry/v1/".
func scope(key string) string {
	s := strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	if bare := strings.TrimSuffix(s, "/"); bare != key {
		host, path, _ := strings.Cut(bare, "/")
		if s = bare; path == "v1" || path == "v2" {
			s = host
		}
	}
	host, path, deeper := strings.Cut(s, "/")
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		host = "docker.io"
	}
	if deeper {
		return host + "/" + path
	}
	return host
}
