-- What analysts look at: a view a collection, and what collections, spaces and models there are.

CREATE FUNCTION searchapp_private.show_collection(collection_id int) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  shown record;
BEGIN
  SELECT c.name, s.id AS space_id, m.dimensions, m.name AS model INTO shown
  FROM searchapp_data.collections c
  JOIN searchapp_data.spaces s ON s.id = c.active_space
  JOIN searchapp_data.models m ON m.id = s.model_id
  WHERE c.id = show_collection.collection_id AND c.state = 'ready';
  IF NOT FOUND THEN
    RETURN;
  END IF;
  -- cast to the dimensions and back: the planner finds the index, and another space may have others
  EXECUTE format('
    CREATE OR REPLACE VIEW searchapp.%I WITH (security_invoker) AS
    SELECT d.key, d.title, substring(d.text FROM c.start + 1 FOR c.length) AS passage, d.metadata,
      (c.embedding::public.vector(%s))::public.vector AS embedding
    FROM searchapp_data.chunks c
    JOIN searchapp_data.documents d ON d.id = c.document_id AND d.collection_id = %s
    WHERE c.space_id = %s', shown.name, shown.dimensions, collection_id, shown.space_id);
  EXECUTE format('COMMENT ON VIEW searchapp.%I IS %L', shown.name, format(
    'The passages of the collection %s with their embeddings by %s. ORDER BY embedding <=> ... LIMIT uses the index; '
    'it gives as many rows as the limit says where hnsw.iterative_scan is strict_order: searchapp db settings.',
    shown.name, shown.model));
  IF to_regrole('searchapp_reader') IS NOT NULL THEN
    EXECUTE format('GRANT SELECT ON searchapp.%I TO searchapp_reader', shown.name);
  END IF;
END $$;

COMMENT ON FUNCTION searchapp_private.show_collection(int) IS
'Makes or replaces the view of a collection, of its active space.';

CREATE FUNCTION searchapp_data.hide_collection(name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
BEGIN
  IF EXISTS (SELECT FROM searchapp_data.collections c WHERE c.name = hide_collection.name AND c.state = 'retired')
    AND NOT EXISTS (SELECT FROM searchapp_data.collections c WHERE c.name = hide_collection.name AND c.state = 'ready')
  THEN
    EXECUTE format('DROP VIEW IF EXISTS searchapp.%I', name);
  END IF;
EXCEPTION WHEN dependent_objects_still_exist OR lock_not_available THEN
  NULL;  -- it stays, soon without rows, and is the next collection's of that name
END $$;

COMMENT ON FUNCTION searchapp_data.hide_collection(text) IS
'Drops the view of a retired collection, unless others depend on it or are reading it.';

CREATE VIEW searchapp.collections WITH (security_invoker) AS
SELECT a.collection AS name, a.model, a.dimensions, a.fields, a.language, a.words_complete,
  (SELECT count(*) FROM searchapp_data.documents d WHERE d.collection_id = a.collection_id) AS documents,
  (SELECT count(*) FROM searchapp_data.chunks c WHERE c.space_id = a.space_id) AS chunks,
  a.indexed, a.ef_search, s.recall, s.measured_at,
  pg_total_relation_size(to_regclass('searchapp_data.documents_' || a.collection_id))
    + pg_total_relation_size(to_regclass('searchapp_data.chunks_' || a.space_id))
    + coalesce(pg_total_relation_size(to_regclass('searchapp_data.postings_' || a.collection_id)), 0) AS bytes,
  c.created_at
FROM searchapp_data.active_spaces a
JOIN searchapp_data.collections c ON c.id = a.collection_id
JOIN searchapp_data.spaces s ON s.id = a.space_id;

COMMENT ON VIEW searchapp.collections IS
'All collections: the model, the declared fields, what its words are read by (null: it has none), how many documents and
chunks there are (counted where they are asked for), what recall was measured, and the bytes that it takes.';

CREATE VIEW searchapp.spaces WITH (security_invoker) AS
SELECT s.id, c.name AS collection, m.name AS model, m.dimensions, s.id IS NOT DISTINCT FROM c.active_space AS active,
  s.state, s.chunking, (SELECT count(*) FROM searchapp_data.chunks k WHERE k.space_id = s.id) AS chunks, s.ef_search,
  s.recall, s.measured_at, pg_total_relation_size(to_regclass('searchapp_data.chunks_' || s.id)) AS bytes
FROM searchapp_data.spaces s
JOIN searchapp_data.collections c ON c.id = s.collection_id
JOIN searchapp_data.models m ON m.id = s.model_id
WHERE c.state = 'ready';

COMMENT ON VIEW searchapp.spaces IS
'Collections as models see them; a collection is searched by its active space.';

CREATE VIEW searchapp.models WITH (security_invoker) AS
SELECT m.name, m.provider, m.revision, m.dimensions, m.max_tokens, m.query_prefix, m.document_prefix,
  (SELECT count(*) FROM searchapp_data.active_spaces a WHERE a.model_id = m.id) AS collections
FROM searchapp_data.models m;

COMMENT ON VIEW searchapp.models IS 'What made embeddings, and how many collections are searched by it.';

SELECT searchapp_private.show_collection(id) FROM searchapp_data.collections WHERE state = 'ready';
