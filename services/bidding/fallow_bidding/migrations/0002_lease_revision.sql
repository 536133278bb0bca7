-- Who watches a lease compares what it shows; nothing counts a lease's changes any more.
-- squawk-ignore ban-drop-column
ALTER TABLE lease DROP COLUMN revision;
