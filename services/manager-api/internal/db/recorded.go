package db

// LastProven orders, in SQL, proven releases, the last one first; release.Proven is ordered in the same way. What a
// deploy found and what it brought may be proven in one transaction and so at one instant: what was found is the
// earlier one, although its row is the newer.
const LastProven = `proven_at DESC, adopted, id DESC`

// RecordedCommits is, in SQL, the row `recorded` beside the component c: source_commit_hash and deployment_commit_hash
// of its recorded version. These are the commits of the release of that version that was proven last; ” where nobody
// knows them. A deployer has one release per phase: the source commit is known if both have the same, and the
// deployment commits are joined, as upgrade.JoinCommits does.
const RecordedCommits = `LATERAL (
	SELECT coalesce(CASE WHEN count(DISTINCT proven.source_commit_hash) = 1 THEN min(proven.source_commit_hash) END, '')
			AS source_commit_hash,
		coalesce(CASE WHEN count(nullif(proven.deployment_commit_hash, '')) = max(phases.n)
			THEN string_agg(proven.deployment_commit_hash, ',' ORDER BY phase.number) END, '') AS deployment_commit_hash
	FROM (SELECT CASE WHEN c.type = 'deployer' THEN 2 ELSE 1 END AS n) phases
	CROSS JOIN LATERAL generate_series(1, phases.n) phase(number)
	CROSS JOIN LATERAL (
		SELECT r.source_commit_hash, r.deployment_commit_hash FROM releases r
		WHERE r.component_id = c.id AND r.phase = phase.number AND r.proven_at IS NOT NULL
			AND r.source_repo = c.source_repo AND r.source_repo_git_ref = c.source_repo_git_ref
		ORDER BY ` + LastProven + ` LIMIT 1) proven) recorded`
