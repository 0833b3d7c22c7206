package registry

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// ClusterRow is a cluster: where components run.
type ClusterRow struct {
	ID        int64  `json:"id" db:"id"`
	EtcdToken string `json:"etcd_token" db:"etcd_token"`
	ClusterSpec
	InsertedAt db.Stamp `json:"inserted_at" db:"inserted_at"`
	UpdatedAt  db.Stamp `json:"updated_at" db:"updated_at"`
}

// ClusterSpec is what an operator states about a cluster, but for the token that names it.
type ClusterSpec struct {
	Name              *string               `json:"name" db:"name"`
	HostingProviderID *int64                `json:"hosting_provider_id" db:"hosting_provider_id"`
	AllowDockerBuilds *bool                 `json:"allow_docker_builds" db:"allow_docker_builds"`
	ExchangeID        *component.ExchangeID `json:"messaging_exchange_id" db:"messaging_exchange_id"`
	Runtime           string                `json:"runtime" db:"runtime"`   // fleet | docker
	Endpoint          string                `json:"endpoint" db:"endpoint"` // URL of the runtime
}

const clusterColumns = `id, etcd_token, name, hosting_provider_id, allow_docker_builds, messaging_exchange_id, runtime,
	endpoint, inserted_at, updated_at`

// EachCluster lists clusters by id; builds filters allow_docker_builds, of which NULL never matches.
func (s *Registry) EachCluster(ctx context.Context, p db.Part, builds *bool, fn func(ClusterRow) error) error {
	return db.Each(ctx, s.db.Pool, p.Limit, func(r ClusterRow) int64 { return r.ID }, fn,
		`SELECT `+clusterColumns+` FROM etcd_clusters
		WHERE ($1 = 0 OR messaging_exchange_id = $1) AND ($2::boolean IS NULL
		OR allow_docker_builds = $2)`, p.Exchange, builds)
}

// Cluster reads the cluster of a token, whatever its case.
func (s *Registry) Cluster(ctx context.Context, token string) (ClusterRow, error) {
	row, err := db.One[ClusterRow](ctx, s.db.Pool, `SELECT `+clusterColumns+` FROM etcd_clusters
		WHERE lower(etcd_token) = lower($1)`, token)
	if err != nil {
		return row, fmt.Errorf("read cluster %q: %w", token, err)
	}
	return row, nil
}

// CreateCluster stores a cluster. Conflict: the token exists, in whatever case. Invalid: the exchange does not exist.
func (s *Registry) CreateCluster(ctx context.Context, token string, spec ClusterSpec) (int64, error) {
	var id int64
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		err := tx.GetContext(ctx, &id, `INSERT INTO etcd_clusters (etcd_token, name, hosting_provider_id, allow_docker_builds,
			messaging_exchange_id,
			runtime, endpoint) VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id`,
			token, spec.Name, spec.HostingProviderID, spec.AllowDockerBuilds, spec.ExchangeID, spec.Runtime, spec.Endpoint)
		if err != nil {
			return db.UnknownExchange(err)
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: "cluster/" + token, Code: "cluster_created", Inputs: spec})
	})
	if err != nil {
		return 0, fmt.Errorf("create cluster %q: %w", token, err)
	}
	return id, nil
}

// UpdateCluster changes a cluster by edit, which gets what is stored.
func (s *Registry) UpdateCluster(ctx context.Context, token string, edit func(*ClusterSpec) error) error {
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		old, err := lockCluster(ctx, tx, token)
		if err != nil {
			return err
		}
		spec := old.ClusterSpec
		if err := edit(&spec); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE etcd_clusters SET name = $2, hosting_provider_id = $3, allow_docker_builds = $4,
			messaging_exchange_id = $5, runtime = $6, endpoint = $7, updated_at = now() WHERE id = $1`,
			old.ID, spec.Name, spec.HostingProviderID, spec.AllowDockerBuilds, spec.ExchangeID, spec.Runtime, spec.Endpoint)
		if err != nil {
			return db.UnknownExchange(err)
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: "cluster/" + old.EtcdToken, Code: "cluster_changed",
			Inputs: db.Change{Before: old.ClusterSpec, After: spec}})
	})
	if err != nil {
		return fmt.Errorf("update cluster %q: %w", token, err)
	}
	return nil
}

// DeleteCluster removes a cluster; what runs there is left alone.
func (s *Registry) DeleteCluster(ctx context.Context, token string) error {
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		old, err := lockCluster(ctx, tx, token)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM etcd_clusters WHERE id = $1`, old.ID); err != nil {
			return err
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: "cluster/" + old.EtcdToken, Code: "cluster_deleted",
			Inputs: old.ClusterSpec})
	})
	if err != nil {
		return fmt.Errorf("delete cluster %q: %w", token, err)
	}
	return nil
}

func lockCluster(ctx context.Context, tx *sqlx.Tx, token string) (ClusterRow, error) {
	return db.One[ClusterRow](ctx, tx, `SELECT `+clusterColumns+` FROM etcd_clusters
		WHERE lower(etcd_token) = lower($1) FOR UPDATE`, token)
}
