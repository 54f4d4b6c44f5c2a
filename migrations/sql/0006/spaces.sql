-- What a search is about, and what is said where that cannot be.

CREATE VIEW searchapp_data.active_spaces WITH (security_invoker) AS
SELECT c.name AS collection, c.id AS collection_id, s.id AS space_id, m.id AS model_id, m.name AS model, m.dimensions,
  s.state = 'ready' AS indexed, s.ef_search, s.chunks_per_document, s.chunks,
  coalesce(c.settings -> 'fields', '{}') AS fields, c.language, c.backfilled_until IS NULL AS words_complete,
  (s.chunking ->> 'tokens')::int > 0 AS chunked
FROM searchapp_data.collections c
JOIN searchapp_data.spaces s ON s.id = c.active_space
JOIN searchapp_data.models m ON m.id = s.model_id
WHERE c.state = 'ready';

COMMENT ON VIEW searchapp_data.active_spaces IS
'Each collection with the space that it is searched by: the model, the statistics, the declared fields.';

CREATE FUNCTION searchapp_data.near(name text, names text[]) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
WITH listed AS (
  SELECT n.name, 2.0 * (
    SELECT count(*) FROM (
      SELECT substr(lower(' ' || near.name), i, 2) FROM generate_series(1, length(near.name)) i
      INTERSECT ALL
      SELECT substr(lower(' ' || n.name), i, 2) FROM generate_series(1, length(n.name)) i
    ) AS pairs
  ) / greatest(length(near.name) + length(n.name), 1) AS likeness
  FROM unnest(names) AS n (name)
),
closest AS (SELECT name, likeness FROM listed WHERE likeness >= 0.5 ORDER BY likeness DESC, name LIMIT 3),
first AS (SELECT name FROM listed ORDER BY name COLLATE "C" LIMIT 10)
SELECT CASE
  WHEN EXISTS (SELECT FROM closest)
    THEN 'did you mean ' || (SELECT string_agg(name, ' or ' ORDER BY likeness DESC, name) FROM closest) || '?'
  WHEN cardinality(names) = 0 THEN 'there are none yet'
  ELSE 'there are: ' || (SELECT string_agg(name, ', ' ORDER BY name COLLATE "C") FROM first)
    || CASE WHEN cardinality(names) > 10 THEN ', ...' ELSE '' END
END
$$;

COMMENT ON FUNCTION searchapp_data.near(text, text[]) IS
'Says which of the names are near a name, by the pairs of letters that they share; for the end of an error.';

CREATE FUNCTION searchapp_data.find_space(collection text) RETURNS searchapp_data.active_spaces
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  space searchapp_data.active_spaces;
BEGIN
  IF collection IS NULL THEN
    RAISE 'the collection is null; expected its name' USING ERRCODE = 'null_value_not_allowed';
  END IF;
  SELECT a.* INTO space FROM searchapp_data.active_spaces a WHERE a.collection = find_space.collection;
  IF NOT FOUND THEN
    RAISE 'no collection %; %', searchapp_data.quoted(collection), searchapp_data.near(collection, ARRAY(
      SELECT c.name FROM searchapp_data.collections c WHERE c.state = 'ready' ORDER BY c.name LIMIT 1000))
      USING ERRCODE = 'undefined_object', HINT = 'SELECT name FROM searchapp.collections';
  END IF;
  RETURN space;
END $$;

COMMENT ON FUNCTION searchapp_data.find_space(text) IS
'The active space of a collection; raises undefined_object, with the near names, where there is none of that name.';

CREATE FUNCTION searchapp_data.check_text(query text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF query IS NULL THEN
    RAISE 'the query is null; say what to look for' USING ERRCODE = 'null_value_not_allowed';
  ELSIF query !~ '\S' THEN
    RAISE 'the query is empty; say what to look for' USING ERRCODE = 'invalid_parameter_value';
  END IF;
END $$;

COMMENT ON FUNCTION searchapp_data.check_text(text) IS 'Raises an error for a query that says nothing.';

CREATE FUNCTION searchapp_data.check_limit("limit" int) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF "limit" IS NULL OR "limit" NOT BETWEEN 1 AND 100000 THEN
    RAISE 'limit is %; expected 1 to 100,000', coalesce("limit"::text, 'null')
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
END $$;

COMMENT ON FUNCTION searchapp_data.check_limit(int) IS 'Raises invalid_parameter_value for a limit that cannot be.';

CREATE FUNCTION searchapp_data.check_vector(vector public.vector, space searchapp_data.active_spaces, model text)
RETURNS void LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF vector IS NULL THEN
    RAISE 'the vector is null; expected one of % dimensions', space.dimensions
      USING ERRCODE = 'null_value_not_allowed';
  ELSIF model <> space.model THEN
    RAISE 'the vector is of %; the collection % has %', model, space.collection, space.model
      USING ERRCODE = 'invalid_parameter_value';
  ELSIF public.vector_dims(vector) <> space.dimensions THEN
    RAISE 'the vector has % dimensions; the collection % has %',
      public.vector_dims(vector), space.collection, space.dimensions USING ERRCODE = 'invalid_parameter_value';
  ELSIF NOT (public.vector_norm(vector) > 1e-15 AND public.vector_norm(vector) < 1.8e19) THEN
    RAISE 'the vector has the length %; it has no direction that can be compared', public.vector_norm(vector)
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
END $$;

COMMENT ON FUNCTION searchapp_data.check_vector(public.vector, searchapp_data.active_spaces, text) IS
'Raises an error for a vector that a space cannot be searched by; model: null is taken for the space''s.';
