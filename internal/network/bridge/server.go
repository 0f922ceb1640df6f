package bridge

import (
	"context"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
)

func (s *Store) ensureServer(ctx context.Context, n *network.Network) error     { return nil }
func (s *Store) stopServer(ctx context.Context, n *network.Network) error       { return nil }
func (s *Store) passDocker(ctx context.Context) error                           { return nil }
func (s *Store) leaveDocker() error                                             { return nil }
func (s *Store) warnings(ctx context.Context, published bool) ([]string, error) { return nil, nil }
