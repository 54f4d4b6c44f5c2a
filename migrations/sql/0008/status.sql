-- How far sources are.

CREATE VIEW searchapp.sources WITH (security_invoker) AS
SELECT s.name, format('%I.%I', s.table_schema, s.table_name) AS "table", s.collection, s.into_column, s.key, s.title,
  s.text, s.metadata, s.condition AS "where", s.polled_by, s.state, s.reason, s.created_at
FROM searchapp_data.sources s;

COMMENT ON VIEW searchapp.sources IS
'The tables that are kept in step with a collection or with a vector column of their own, and how.';

CREATE VIEW searchapp.source_status WITH (security_invoker) AS
SELECT s.name, s.state, s.reason, s.backfilled, s.rows::bigint AS rows, s.enqueued AS read, c.pending, f.retrying, f.failed,
  clock_timestamp() - c.oldest AS oldest, w.rate,
  CASE WHEN c.pending = 0 AND s.backfilled THEN interval '0'
    WHEN w.rate > 0 THEN make_interval(secs => (c.pending + CASE WHEN s.backfilled THEN 0
      ELSE greatest(s.rows - s.enqueued, 0) END) / w.rate) END AS time_left,
  nullif(s.checked_at, 'epoch') AS checked_at, w.workers
FROM searchapp_data.sources s
CROSS JOIN LATERAL (
  SELECT count(*) AS workers, sum((w.rates ->> s.id::text)::float8) AS rate
  FROM searchapp_data.workers w WHERE w.seen_at > clock_timestamp() - interval '1 minute'
) w
CROSS JOIN LATERAL (
  SELECT count(*) AS pending, min(c.at) AS oldest FROM searchapp_data.changes c WHERE c.source_id = s.id
) c
CROSS JOIN LATERAL (
  SELECT count(*) FILTER (WHERE f.retry_at IS NOT NULL) AS retrying, count(*) FILTER (WHERE f.retry_at IS NULL) AS failed
  FROM searchapp_data.failures f WHERE f.source_id = s.id
) f;

COMMENT ON VIEW searchapp.source_status IS
'How far each source is: changes that are pending and how old the oldest is, rows that are tried again and that have
failed, rows a second lately, how long what is left will take, and how many workers are alive. rows is how many the table
had, by estimate, read how many of them have been taken up for the first time; all, where it is backfilled.';

CREATE VIEW searchapp.change_status WITH (security_invoker) AS
SELECT s.name AS source, s.collection, k.key, k.changed_at, k.attempts, k.error
FROM searchapp_data.sources s
CROSS JOIN LATERAL (
  SELECT coalesce(c.key, f.key) AS key, coalesce(c.at, f.at) AS changed_at, f.attempts, f.error
  FROM (
    SELECT c.key, min(c.at) AS at FROM searchapp_data.changes c
    WHERE c.source_id = s.id AND c.key IS NOT NULL GROUP BY c.key
  ) c
  FULL JOIN (SELECT * FROM searchapp_data.failures f WHERE f.source_id = s.id) f ON f.key = c.key
) k;

COMMENT ON VIEW searchapp.change_status IS
'Which rows have changed since their documents were written, and which could not be: a hit whose key is here is of an
older row. attempts and error are of those that have failed.';
