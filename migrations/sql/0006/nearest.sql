-- Search by meaning: the rungs of searchapp/search/ladder.py, one after the other. What the planner must see stands in
-- the statements as a literal: the space, the dimensions, the limits, a filter's values.

CREATE TYPE searchapp_data.near_document AS (document_id uuid, start int, length int, distance float8);

COMMENT ON TYPE searchapp_data.near_document IS 'A document, its nearest passage, and how far that is.';

CREATE TYPE searchapp_data.condition AS (expression text, required uuid[], excluded uuid[]);

COMMENT ON TYPE searchapp_data.condition IS
'What a hit''s document d must satisfy: an SQL expression, being one of some documents, being none of others; or null.';

CREATE FUNCTION searchapp_data.fits(condition searchapp_data.condition) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT nullif(concat_ws(' AND ',
  '(' || condition.expression || ')',
  CASE WHEN condition.required IS NOT NULL THEN 'd.id = ANY ($2)' END,
  CASE WHEN condition.excluded IS NOT NULL THEN 'd.id <> ALL ($3)' END), '')
$$;

COMMENT ON FUNCTION searchapp_data.fits(searchapp_data.condition) IS
'A condition as SQL, with its documents as $2 and $3; null where it keeps all.';

CREATE FUNCTION searchapp_data.nearest_of_each(chunks searchapp_data.near_document[], count int)
RETURNS searchapp_data.near_document[]
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN ARRAY(
    SELECT ROW(b.*)::searchapp_data.near_document FROM (
      SELECT DISTINCT ON (c.document_id) c.* FROM unnest(chunks) c ORDER BY c.document_id, c.distance, c.start
    ) b
    ORDER BY b.distance
    FETCH FIRST (count) ROWS WITH TIES
  );
END $$;

COMMENT ON FUNCTION searchapp_data.nearest_of_each(searchapp_data.near_document[], int) IS
'The nearest chunk of each document, so many of the nearest; more where the last ones are equally far.';

CREATE FUNCTION searchapp_data.are_enough(chunks searchapp_data.near_document[], count int) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    SELECT count(DISTINCT c.document_id) >= are_enough.count FROM unnest(chunks) c
    WHERE c.distance < (SELECT max(l.distance) FROM unnest(chunks) l)
  );
END $$;

COMMENT ON FUNCTION searchapp_data.are_enough(searchapp_data.near_document[], int) IS
'Whether so many documents are nearer than the last chunk. Where the last ones are equally far the index may be stuck
among equal vectors, which hide nearer ones.';

CREATE FUNCTION searchapp_data.nearest(
  space searchapp_data.active_spaces, vector public.vector, count int, condition searchapp_data.condition,
  without uuid DEFAULT NULL, OUT documents searchapp_data.near_document[], OUT exact boolean
) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  dimensions CONSTANT int := public.vector_dims(vector);  -- loads pgvector, so that its settings are known
  -- put back at the end; a SET clause would do so, but may be written by no one else than who has pgvector loaded
  before CONSTANT text[] := ARRAY[current_setting('hnsw.ef_search'), current_setting('hnsw.iterative_scan')];
  fits CONSTANT text := searchapp_data.fits(condition);
  filtered CONSTANT boolean := fits IS NOT NULL;
  wanted CONSTANT int := ceil(count * space.chunks_per_document);
  fetched CONSTANT int := greatest(20, CASE WHEN filtered THEN 2 * wanted ELSE wanted END + 10);
  ef_search CONSTANT int := ceil(CASE WHEN filtered THEN 1.5 * space.ef_search ELSE space.ef_search END);
  -- of more rows the index saves no time
  by_scan CONSTANT boolean := NOT space.indexed OR (space.chunks > 0 AND fetched * 15::float8 >= space.chunks);
  distance CONSTANT text := format('c.embedding::public.vector(%s) OPERATOR(public.<=>) $1', space.dimensions);
  document CONSTANT text := format(
    'JOIN searchapp_data.documents d ON d.id = c.document_id AND d.collection_id = %s', space.collection_id);
  chunks CONSTANT text := concat_ws(' ',
    'FROM searchapp_data.chunks c', CASE WHEN filtered THEN document END,
    format('WHERE c.space_id = %s', space.space_id),
    'AND ' || fits, CASE WHEN without IS NOT NULL THEN 'AND c.document_id <> $4' END);
  rung int;
BEGIN
  <<rungs>>
  BEGIN
    exact := by_scan;
    IF by_scan THEN  -- of all, which keeps no more than it must
      EXECUTE format('
        SELECT array_agg(ROW(r.*)::searchapp_data.near_document) FROM (
          SELECT c.document_id, c.start, c.length, (%s) + 0 AS distance %s ORDER BY distance LIMIT %s
        ) r', distance, chunks, fetched) INTO documents USING vector, condition.required, condition.excluded, without;
      EXIT rungs WHEN searchapp_data.are_enough(documents, count) OR coalesce(cardinality(documents), 0) < fetched;
    ELSE
      -- where documents have several chunks, and those found are of too few documents, as many as the index gives
      FOREACH rung IN ARRAY CASE WHEN space.chunks_per_document > 1 AND fetched < 1000
        THEN ARRAY[fetched, 1000] ELSE ARRAY[fetched] END
      LOOP
        EXECUTE format('
          WITH setting AS MATERIALIZED (
            SELECT set_config(''hnsw.ef_search'', %1$L, true) || set_config(''hnsw.iterative_scan'', %2$L, true) AS v
          )
          SELECT array_agg(ROW(r.*)::searchapp_data.near_document) FROM (
            SELECT h.* FROM setting CROSS JOIN LATERAL (
              SELECT c.document_id, c.start, c.length, %3$s AS distance %4$s AND setting.v IS NOT NULL
              ORDER BY %3$s LIMIT %5$s
            ) h LIMIT %6$s
          ) r',
          least(greatest(rung, ef_search), 1000),
          CASE WHEN filtered OR rung >= 1000 THEN 'relaxed_order' ELSE 'off' END,
          distance,
          chunks,
          -- the planner takes an iterative scan for cheaper than it is
          CASE WHEN filtered THEN greatest(80::bigint * CASE rung WHEN fetched THEN wanted ELSE 500 END, rung)
            ELSE rung END,
          rung) INTO documents USING vector, condition.required, condition.excluded, without;
        EXIT rungs WHEN searchapp_data.are_enough(documents, count);
      END LOOP;
    END IF;
    exact := true;
    EXECUTE format('
      SELECT array_agg(ROW(r.*)::searchapp_data.near_document) FROM (
        SELECT n.* FROM (
          SELECT DISTINCT ON (c.document_id) c.document_id, c.start, c.length, (%s) + 0 AS distance %s
          ORDER BY c.document_id, distance, c.start
        ) n ORDER BY n.distance FETCH FIRST (%s) ROWS WITH TIES
      ) r', distance, chunks, count) INTO documents USING vector, condition.required, condition.excluded, without;
  END rungs;
  documents := searchapp_data.nearest_of_each(documents, count);
  PERFORM set_config('hnsw.ef_search', before[1], true), set_config('hnsw.iterative_scan', before[2], true);
END $$;

COMMENT ON FUNCTION
searchapp_data.nearest(searchapp_data.active_spaces, public.vector, int, searchapp_data.condition, uuid) IS
'The documents of a space that are nearest to a vector: count of them where so many fit, more where the last ones are
equally far; exact is false where they come from the index.';
