package db_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

var _ = Describe("The schema", func() {
	It("is migrated once, and again without effect", func() {
		Expect(newDB().Usable(ctx())).To(Succeed())
		Expect(db.Migrate(ctx(), database.Config())).To(Succeed())
	})

	It("may be newer than the binary, as long as it admits it", func() {
		d := newDB()
		DeferCleanup(func() { exec(`UPDATE schema_info SET release = $1, min_release = 1`, db.Release) })
		exec(`UPDATE schema_info SET release = $1`, db.Release+1)
		Expect(d.Usable(ctx())).To(Succeed())
		Expect(db.Migrate(ctx(), database.Config())).To(Succeed())
		exec(`UPDATE schema_info SET min_release = $1`, db.Release+1)
		Expect(d.Usable(ctx())).To(MatchError(ContainSubstring(
			fmt.Sprintf("runs binaries of release %d or newer", db.Release+1))))
	})

	It("has no id, reference or sequence of 32 bits", func() {
		Expect(texts(`SELECT table_name || '.' || column_name FROM information_schema.columns
			WHERE table_schema = current_schema() AND data_type IN ('integer', 'smallint')
				AND (column_name = 'id' OR column_name LIKE '%\_id') AND table_name NOT LIKE 'goose%'`)).To(BeEmpty())
		Expect(texts(`SELECT sequencename FROM pg_sequences
			WHERE data_type <> 'bigint'::regtype AND sequencename NOT LIKE 'goose%'`)).To(BeEmpty())
	})
})

var _ = Describe("An id", func() {
	It("is a UUIDv7 by the database's clock: ids rise with time, also within a millisecond", func() {
		ids := texts(`SELECT new_id()::text FROM generate_series(1, 2000)`)
		Expect(slices.IsSorted(ids)).To(BeTrue())
		id, err := uuid.Parse(ids[0])
		Expect(err).NotTo(HaveOccurred())
		Expect(id.Version()).To(Equal(uuid.Version(7)))
		Expect(id.Variant()).To(Equal(uuid.RFC4122))
		now, err := newDB().Now(ctx())
		Expect(err).NotTo(HaveOccurred())
		Expect(time.Unix(id.Time().UnixTime())).To(BeTemporally("~", now, time.Minute))
	})
})

var _ = Describe("The migrations", func() {
	It("state their release in the last file alone: a start that is killed between two of them goes on", func() {
		files, err := filepath.Glob("migrations/*.sql")
		Expect(err).NotTo(HaveOccurred())
		slices.Sort(files)
		for _, file := range files[1:] {
			text, err := os.ReadFile(file)
			Expect(err).NotTo(HaveOccurred())
			statement := fmt.Sprintf("UPDATE schema_info SET release = %d;", db.Release)
			Expect(strings.Contains(string(text), "SET release")).To(Equal(file == files[len(files)-1]), file)
			Expect(strings.Contains(string(text), statement)).To(Equal(file == files[len(files)-1]), file)
		}
	})
})
