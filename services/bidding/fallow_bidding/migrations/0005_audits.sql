-- Auditors' signatures are checked when they are handed in. Those that were stored before were not, so they go: their owners
-- hand them in again.
UPDATE provider SET auditor_signatures = '[]' WHERE auditor_signatures <> '[]';
