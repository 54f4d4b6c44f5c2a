-- What analysts ask with.

CREATE TYPE searchapp_data.hit AS (
  key text, title text, passage text, score float8, distance float8, metadata jsonb, vector_score float8,
  text_score float8
);

COMMENT ON TYPE searchapp_data.hit IS 'A document that was found: the fields of a hit in Python.';

CREATE FUNCTION searchapp_data.condition_of(filter jsonb, space searchapp_data.active_spaces)
RETURNS searchapp_data.condition LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN ROW(searchapp_data.filter_condition(filter, space.fields), NULL, NULL)::searchapp_data.condition;
END $$;

COMMENT ON FUNCTION searchapp_data.condition_of(jsonb, searchapp_data.active_spaces) IS
'What a filter means for the documents of a space.';

CREATE FUNCTION searchapp_data.as_hits(
  space searchapp_data.active_spaces, nearest searchapp_data.near_document[], "limit" int
)
RETURNS SETOF searchapp_data.hit
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY EXECUTE format('
    SELECT d.key, d.title, substring(d.text FROM n.start + 1 FOR n.length), 1 - n.distance, n.distance, d.metadata,
      1 - n.distance, NULL::float8
    FROM unnest($1) n
    JOIN searchapp_data.documents d ON d.id = n.document_id AND d.collection_id = %s
    ORDER BY n.distance, d.key LIMIT %s', space.collection_id, "limit") USING nearest;
END $$;

COMMENT ON FUNCTION searchapp_data.as_hits(searchapp_data.active_spaces, searchapp_data.near_document[], int) IS
'The nearest documents as hits, equally far ones by key.';

CREATE FUNCTION searchapp.search_by_vector(
  vector public.vector, collection text, "limit" int DEFAULT 10, filter jsonb DEFAULT NULL, model text DEFAULT NULL
)
RETURNS SETOF searchapp_data.hit
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  space CONSTANT searchapp_data.active_spaces := searchapp_data.find_space(collection);
BEGIN
  PERFORM searchapp_data.check_limit("limit"), searchapp_data.check_vector(vector, space, model);
  RETURN QUERY SELECT * FROM searchapp_data.as_hits(space, (
    searchapp_data.nearest(space, vector, "limit", searchapp_data.condition_of(filter, space))).documents, "limit");
END $$;

COMMENT ON FUNCTION searchapp.search_by_vector(public.vector, text, int, jsonb, text) IS
'The documents of a collection that are nearest to a vector of its model, nearest first, equally far ones by key.
"limit": how many, 1 to 100,000; fewer only where fewer match.
filter: what a document''s metadata must satisfy, such as {"lang": "en", "year": {"$gte": 2020}}.
model: what made the vector; another than the collection''s is refused. Null: it is taken for the collection''s.
distance is cosine distance, 0 to 2; score, and vector_score, is 1 - distance.';

CREATE FUNCTION searchapp.similar(collection text, key text, "limit" int DEFAULT 10, filter jsonb DEFAULT NULL)
RETURNS SETOF searchapp_data.hit
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  space CONSTANT searchapp_data.active_spaces := searchapp_data.find_space(collection);
  document uuid;
  vector public.vector;
BEGIN
  PERFORM searchapp_data.check_limit("limit");
  EXECUTE format('SELECT d.id FROM searchapp_data.documents d WHERE d.collection_id = %s AND d.key = $1',
    space.collection_id) INTO document USING $2;
  IF document IS NULL THEN
    PERFORM searchapp_data.refuse_key(space, $2);
  END IF;
  EXECUTE format('SELECT public.avg(c.embedding) FROM searchapp_data.chunks c WHERE c.space_id = %s
    AND c.document_id = $1', space.space_id) INTO vector USING document;
  IF vector IS NULL THEN
    RETURN;  -- it has no chunks
  END IF;
  RETURN QUERY SELECT * FROM searchapp_data.as_hits(space, (searchapp_data.nearest(
    space, vector, "limit", searchapp_data.condition_of(filter, space), without => document)).documents, "limit");
END $$;

COMMENT ON FUNCTION searchapp.similar(text, text, int, jsonb) IS
'The documents of a collection that are most like one of them, which is left out.
key: that document''s; one of several passages is what these are on average.
"limit", filter and the columns: as of searchapp.search_by_vector.';

CREATE FUNCTION searchapp_data.refuse_key(space searchapp_data.active_spaces, key text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  beside text[];
BEGIN
  IF key IS NULL THEN
    RAISE 'the key is null; expected the key of a document' USING ERRCODE = 'null_value_not_allowed';
  END IF;
  EXECUTE format('
    WITH d AS (SELECT key FROM searchapp_data.documents WHERE collection_id = %s)
    SELECT array_agg(key) FROM (
      (SELECT key FROM d WHERE key >= $1 ORDER BY key LIMIT 20)
      UNION (SELECT key FROM d WHERE key < $1 ORDER BY key DESC LIMIT 20)
      UNION (SELECT key FROM d WHERE starts_with(key, left($1, 1)) ORDER BY key LIMIT 20)
    ) AS beside', space.collection_id) INTO beside USING key;
  RAISE 'the collection % has no document %; %', space.collection, searchapp_data.quoted(key),
    searchapp_data.near(key, coalesce(beside, '{}')) USING ERRCODE = 'no_data_found';
END $$;

COMMENT ON FUNCTION searchapp_data.refuse_key(searchapp_data.active_spaces, text) IS
'Raises no_data_found for a key of which there is no document, with the near ones.';

CREATE FUNCTION searchapp_data.shown_by_words(
  space searchapp_data.active_spaces, best searchapp_data.scored_document[], weighed searchapp_data.weighed_word[]
)
RETURNS SETOF searchapp_data.hit
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  place text;
BEGIN
  IF space.chunked THEN
    place := format('
      SELECT ARRAY[c.start, c.length] FROM searchapp_data.chunks c
      WHERE c.space_id = %s AND c.document_id = h.document_id
      ORDER BY CASE WHEN count(*) OVER () > 1 THEN searchapp_data.score_of_piece(
        substring(d.text FROM c.start + 1 FOR c.length), %L::regconfig, $2) END DESC NULLS LAST, c.start
      LIMIT 1', space.space_id, space.language);
  ELSE  -- what the model reads of a long document may be a small part of it
    place := format('
      SELECT coalesce((
        SELECT ARRAY[c.start, c.length] FROM searchapp_data.chunks c
        WHERE c.space_id = %s AND c.document_id = h.document_id
          AND (c.length * 2 >= octet_length(d.text) OR c.length * 2 >= length(d.text))
      ), (
        SELECT ARRAY[p.start, length(p.piece)] FROM (
          SELECT s.piece, (sum(length(s.piece)) OVER (ORDER BY s.place) - length(s.piece))::int AS start
          FROM searchapp_data.slices(d.text, 1000) WITH ORDINALITY AS s (piece, place)
        ) p
        ORDER BY searchapp_data.score_of_piece(p.piece, %L::regconfig, $2) DESC NULLS LAST, p.start LIMIT 1
      ))', space.space_id, space.language);
  END IF;
  RETURN QUERY EXECUTE format('
    SELECT d.key, d.title, substring(d.text FROM p.place[1] + 1 FOR p.place[2]), h.score, NULL::float8, d.metadata,
      NULL::float8, h.score
    FROM unnest($1) h
    JOIN searchapp_data.documents d ON d.id = h.document_id AND d.collection_id = %s
    CROSS JOIN LATERAL (SELECT coalesce((%s), ARRAY[0, 1000]) AS place OFFSET 0) p
    ORDER BY h.score DESC, h.document_id', space.collection_id, place) USING best, weighed;
END $$;

COMMENT ON FUNCTION searchapp_data.shown_by_words(
  searchapp_data.active_spaces, searchapp_data.scored_document[], searchapp_data.weighed_word[]) IS
'The best documents as hits, each by the passage that has most of the words, equally good ones by their ids.';

CREATE FUNCTION searchapp_data.fused(
  space searchapp_data.active_spaces, vector public.vector, near searchapp_data.near_document[],
  scored searchapp_data.scored_document[], candidates int, "limit" int
)
RETURNS SETOF searchapp_data.hit
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY EXECUTE format('
    WITH near AS MATERIALIZED (SELECT * FROM unnest($2)),
    scored AS MATERIALIZED (SELECT * FROM unnest($3)),
    by_words AS MATERIALIZED (SELECT document_id FROM scored ORDER BY score DESC, document_id LIMIT %1$s),
    measured AS (
      SELECT * FROM near
      UNION ALL
      SELECT * FROM (
        SELECT DISTINCT ON (c.document_id) c.document_id, c.start, c.length,
          (c.embedding::public.vector(%2$s) OPERATOR(public.<=>) $1) + 0 AS distance
        FROM searchapp_data.chunks c
        WHERE c.space_id = %3$s AND c.document_id = ANY (ARRAY(
          SELECT document_id FROM by_words WHERE document_id NOT IN (SELECT document_id FROM near)))
        ORDER BY c.document_id, distance, c.start
      ) AS others
    ),
    listed AS (
      SELECT l.document_id, m.start, m.length, m.distance, coalesce(s.score, 0) AS text_score,
        coalesce(2 - m.distance, 0) AS cosine
      FROM (SELECT document_id FROM by_words UNION SELECT document_id FROM near) l
      LEFT JOIN measured m ON m.document_id = l.document_id
      LEFT JOIN scored s ON s.document_id = l.document_id
    ),
    best AS (
      SELECT b.*, 0.8::float8 * (cosine / greatest(max(cosine) OVER (), 1e-9::float8))
        + 0.2::float8 * (text_score / greatest(max(text_score) OVER (), 1e-9::float8)) AS score
      FROM listed b ORDER BY score DESC, document_id LIMIT %4$s
    )
    SELECT d.key, d.title, substring(d.text FROM coalesce(b.start, 0) + 1 FOR coalesce(b.length, 1000)), b.score,
      b.distance, d.metadata, 1 - b.distance, b.text_score
    FROM best b JOIN searchapp_data.documents d ON d.id = b.document_id AND d.collection_id = %5$s
    ORDER BY b.score DESC, b.document_id',
    candidates, space.dimensions, space.space_id, "limit", space.collection_id) USING vector, near, scored;
END $$;

COMMENT ON FUNCTION searchapp_data.fused(
  searchapp_data.active_spaces, public.vector, searchapp_data.near_document[], searchapp_data.scored_document[], int,
  int) IS
'The best of what is near and of what has the words as hits, equally good ones by their ids. 1 + cosine and BM25, each
divided by its largest, with the weights 0.8 and 0.2 (TM2C2 of Bruch, Gai and Ingber, TOIS 2023).';

CREATE FUNCTION searchapp.search(
  query text, collection text, "limit" int DEFAULT 10, filter jsonb DEFAULT NULL, mode text DEFAULT NULL
)
RETURNS SETOF searchapp_data.hit
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  space CONSTANT searchapp_data.active_spaces := searchapp_data.find_space(collection);
  way CONSTANT text := coalesce(mode,
    CASE WHEN space.language IS NOT NULL AND space.words_complete THEN 'hybrid' ELSE 'vector' END);
  candidates CONSTANT int := greatest(100, "limit");
  condition searchapp_data.condition := searchapp_data.condition_of(filter, space);
  read record;
  weighed searchapp_data.weighed_word[];
  scored searchapp_data.scored_document[];
  vector public.vector;
  near searchapp_data.near_document[];
BEGIN
  PERFORM searchapp_data.check_limit("limit"), searchapp_data.check_query(query, way, space);
  IF way = 'vector' THEN
    RETURN QUERY SELECT * FROM searchapp_data.as_hits(space, (
      searchapp_data.nearest(space, searchapp.embed(query, collection), "limit", condition)).documents, "limit");
    RETURN;
  END IF;
  read := searchapp_data.read_query(query);
  IF read.phrases IS NOT NULL THEN
    condition.required := searchapp_data.having_phrases(space, read.phrases, true);
  END IF;
  IF read.excluded IS NOT NULL THEN
    condition.excluded := searchapp_data.having_phrases(space, read.excluded, false);
  END IF;
  weighed := searchapp_data.weigh(space, read.words);
  IF way = 'text' THEN
    scored := ARRAY(
      SELECT s FROM unnest(searchapp_data.best_by_words(space, weighed, "limit", condition)) s
      ORDER BY s.score DESC, s.document_id LIMIT "limit");
    RETURN QUERY SELECT * FROM searchapp_data.shown_by_words(space, scored, weighed);
    RETURN;
  END IF;
  vector := searchapp.embed(read.words, collection);
  near := ARRAY(
    SELECT n FROM unnest((searchapp_data.nearest(space, vector, candidates, condition)).documents) n
    ORDER BY n.distance, n.document_id LIMIT candidates);
  scored := searchapp_data.best_by_words(
    space, weighed, candidates, condition, ARRAY(SELECT n.document_id FROM unnest(near) n));
  RETURN QUERY SELECT * FROM searchapp_data.fused(space, vector, near, scored, candidates, "limit");
END $$;

COMMENT ON FUNCTION searchapp.search(text, text, int, jsonb, text) IS
'The documents of a collection that mean what the query means, that have its words, or both; best first.
Where its words count, a "phrase" must stand in a hit, and an -excluded word must not.
"limit": how many, 1 to 100,000; fewer only where fewer match.
filter: what a document''s metadata must satisfy, such as {"lang": "en", "year": {"$gte": 2020}}.
mode: vector, text (BM25) or hybrid; null: hybrid where the collection has words, else vector.
score is larger for what is better: 1 - distance, BM25, or both fused; vector_score and text_score say what meaning and
words gave. The query is encoded by a worker: searchapp worker. Those of the mode text need none.';

CREATE FUNCTION searchapp_data.check_query(query text, mode text, space searchapp_data.active_spaces) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM searchapp_data.check_text(query);
  IF length(query) > 100000 THEN
    RAISE 'the query has % characters; at most 100,000 can be asked', length(query)
      USING ERRCODE = 'invalid_parameter_value';
  ELSIF mode NOT IN ('vector', 'text', 'hybrid') THEN
    RAISE 'mode is %; expected one of: vector, text, hybrid', searchapp_data.quoted(mode)
      USING ERRCODE = 'invalid_parameter_value';
  ELSIF mode <> 'vector' AND space.language IS NULL THEN
    RAISE 'the collection % has no words; make them: searchapp index words --collection %, or search it in the mode '
      'vector', space.collection, space.collection USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
END $$;

COMMENT ON FUNCTION searchapp_data.check_query(text, text, searchapp_data.active_spaces) IS
'Raises an error for a query or a mode that cannot be.';
