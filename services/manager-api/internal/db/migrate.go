package db

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"time"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/postgres"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Release is the number of the schema that this binary was made for (docs/compatibility.md#the-schema).
const Release = 2

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate brings the schema to Release with forward-only migrations, one process at a time (a session advisory lock).
// A schema that is as new or newer is left alone. It uses connections of its own, whose lock_timeout keeps a migration
// from stalling what runs.
func Migrate(ctx context.Context, c postgres.Config) error {
	db, err := postgres.OpenForMigrations(c)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	if found, _, err := schemaInfo(ctx, db); err == nil && found >= Release {
		return nil
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 30))
	if err != nil {
		return fmt.Errorf("make migration lock: %w", err)
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("open migrations: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db.DB.DB, files, goose.WithSessionLocker(locker))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", postgres.Translate(err))
	}
	return nil
}

// Usable says whether this binary may run on the schema that it finds: any newer one whose min_release it satisfies.
// Its error is one sentence, fit for /readyz.
func (s *DB) Usable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	found, atLeast, err := schemaInfo(ctx, s.Pool)
	switch {
	case err != nil:
		return err
	case found < Release:
		return fault.New(fault.Unavailable,
			"the schema is of release %d and this binary needs %d: migrations have not run yet", found, Release)
	case atLeast > Release:
		return fault.New(fault.Unavailable,
			"the schema is of release %d and runs binaries of release %d or newer: this one is of release %d", found, atLeast,
			Release)
	default:
		return nil
	}
}

func schemaInfo(ctx context.Context, db *postgres.DB) (found, atLeast int, err error) {
	err = db.QueryRowxContext(ctx, `SELECT release, min_release FROM schema_info`).Scan(&found, &atLeast)
	if pq.As(err, pqerror.UndefinedTable) != nil {
		return 0, 0, nil // an empty database
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read schema_info: %w", postgres.Translate(err))
	}
	return found, atLeast, nil
}
