package temporal

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"

	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/persistence/sql/sqlplugin"
	sqliteplugin "go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	sqliteschema "go.temporal.io/server/schema/sqlite"
	"google.golang.org/protobuf/types/known/durationpb"
)

// ErrSchema says that a database was made by another release of the server. There are no migrations for SQLite.
var ErrSchema = errors.New("database has another schema: move it away, or use the release that made it")

// sqlite says how the file is opened. With a rollback journal the server does 3 workflows a second instead of 30; with
// more than one connection it meets "database is locked".
func sqlite(path string) *config.SQL {
	return &config.SQL{
		PluginName: sqliteplugin.PluginName, DatabaseName: path, MaxConns: 1, MaxIdleConns: 1,
		ConnectAttributes: map[string]string{
			"mode": "rwc", "journal_mode": "wal", "synchronous": "normal", "busy_timeout": "10000",
		},
	}
}

// prepareDatabase makes the tables in a new file, or checks that an old one has those this server wants, and the namespace.
// The schema's hash is kept beside the file and written last: a file without it was never used.
func prepareDatabase(db *config.SQL, opts Options) error {
	want, err := schemaHash()
	if err != nil {
		return err
	}
	mark := opts.Database + ".schema"
	_, err = os.Stat(opts.Database)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := sqliteschema.SetupSchema(db); err != nil {
			return fmt.Errorf("make tables: %w", err)
		}
		if err := os.WriteFile(mark, []byte(want+"\n"), 0o600); err != nil {
			return fmt.Errorf("keep hash of the schema: %w", err)
		}
	case err != nil:
		return fmt.Errorf("look for the database: %w", err)
	default:
		have, err := os.ReadFile(mark)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s was not finished or is not ours (%s is missing): %w", opts.Database, mark, ErrSchema)
		}
		if err != nil {
			return fmt.Errorf("read hash of the schema: %w", err)
		}
		if string(have) != want+"\n" {
			return fmt.Errorf("%s: %w", opts.Database, ErrSchema)
		}
	}
	namespace, err := sqliteschema.NewNamespaceConfig(clusterName, opts.Namespace, false, opts.SearchAttributes)
	if err != nil {
		return fmt.Errorf("describe namespace %s: %w", opts.Namespace, err)
	}
	namespace.Detail.Config.Retention = durationpb.New(opts.Retention)
	if err := sqliteschema.CreateNamespaces(db, namespace); err != nil { // does nothing when it exists
		return fmt.Errorf("make namespace %s: %w", opts.Namespace, err)
	}
	return nil
}

// schemaHash hashes the statements that would make the tables, by having them executed on something that only listens.
func schemaHash() (string, error) {
	listener := statementHash{Hash: sha256.New()}
	if err := sqliteschema.SetupSchemaOnDB(listener); err != nil {
		return "", fmt.Errorf("hash schema: %w", err)
	}
	return hex.EncodeToString(listener.Sum(nil)), nil
}

// A statementHash is a database that hashes the statements it gets; the schema asks nothing else of one.
type statementHash struct {
	hash.Hash
	sqlplugin.AdminDB
}

// Exec adds the statement to the hash.
func (h statementHash) Exec(statement string, _ ...any) error {
	fmt.Fprintf(h, "%d %s\n", len(statement), statement)
	return nil
}
