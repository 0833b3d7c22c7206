package engine_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("The schema", func() {
	It("has no id, reference or sequence of 32 bits", func() {
		w := newWorld()
		Expect(w.value(`SELECT string_agg(table_name || '.' || column_name, ', ') FROM information_schema.columns
			WHERE table_schema = current_schema() AND data_type IN ('integer', 'smallint')
			AND (column_name = 'id' OR column_name LIKE '%\_id') AND table_name NOT LIKE 'goose%'`)).To(BeEmpty())
		Expect(w.value(`SELECT string_agg(sequencename, ', ') FROM pg_sequences
			WHERE data_type <> 'bigint'::regtype AND sequencename NOT LIKE 'goose%'`)).To(BeEmpty())
	})
})
