-- How a query is asked for, and answered: by ask and answer, each of which is a transaction's work. embed() calls them in
-- a second session; outside of any transaction everybody may: CALL searchapp.embed_query('red shoes', 'products').

CREATE FUNCTION searchapp_private.check_request(query text, model_id int) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  model searchapp_data.models;
BEGIN
  PERFORM searchapp_data.check_text(query);
  IF length(query) > 8000 THEN
    RAISE 'the query has % characters; at most 8,000 can be encoded from SQL', length(query)
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  SELECT m.* INTO model FROM searchapp_data.models m WHERE m.id = model_id;
  IF NOT FOUND THEN
    RAISE 'no model has the id %', coalesce(model_id::text, 'null') USING ERRCODE = 'undefined_object';
  ELSIF model.provider = 'external' THEN
    RAISE 'the model % is only known by its name: its embeddings were brought along, so no text can be encoded by it; '
      'ask by a vector: searchapp.search_by_vector', model.name USING ERRCODE = 'feature_not_supported';
  END IF;
END $$;

COMMENT ON FUNCTION searchapp_private.check_request(text, int) IS
'Raises an error for a query that is not to be encoded, and for a model that no worker can encode by.';

-- Mostly the first statement of a session, so it asks for as little as it can of what the session does not know yet.
CREATE FUNCTION searchapp.ask(query text, collection text, model_id int DEFAULT NULL) RETURNS int
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  hash CONSTANT bytea := sha256(convert_to(query, 'UTF8'));
BEGIN
  IF model_id IS NULL THEN
    model_id := (searchapp_data.find_space(collection)).model_id;
  END IF;
  INSERT INTO searchapp_private.query_requests (model_id, text_hash, text)
  SELECT m.id, hash, query FROM searchapp_data.models m
  WHERE m.id = ask.model_id AND m.provider <> 'external' AND query ~ '\S' AND length(query) <= 8000
    AND NOT EXISTS (
      SELECT FROM searchapp_private.query_requests r WHERE r.model_id = ask.model_id AND r.text_hash = hash)
    AND NOT EXISTS (
      SELECT FROM searchapp_private.query_embeddings q
      WHERE q.model_id = ask.model_id AND q.text_hash = hash
        AND (q.error IS NULL OR q.made_at > clock_timestamp() - interval '10 s'))
    AND 10000 > (  -- whoever waits asks again, and so gets in when there is room
      SELECT count(*) FROM (SELECT FROM searchapp_private.query_requests LIMIT 10000) AS waiting);
  IF FOUND THEN
    PERFORM pg_notify('searchapp_queries', '');
  ELSE
    PERFORM searchapp_private.check_request(query, model_id);
  END IF;
  RETURN model_id;
END $$;

COMMENT ON FUNCTION searchapp.ask(text, text, int) IS
'Asks the workers for the embedding of a query, once this transaction is committed; searchapp.embed_query calls it.
model_id: of a model, in the place of the collection''s.
Returns the id of the model that is to make it.';

CREATE FUNCTION searchapp.answer(query text, model_id int) RETURNS public.vector
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  made searchapp_private.query_embeddings;
BEGIN
  SELECT q.* INTO made FROM searchapp_private.query_embeddings q
  WHERE q.model_id = answer.model_id AND q.text_hash = sha256(convert_to(query, 'UTF8'));
  IF made.error IS NOT NULL AND made.made_at > clock_timestamp() - interval '10 s' THEN
    RAISE '%', made.error USING ERRCODE = 'SA022';
  ELSIF made.embedding IS NULL AND NOT EXISTS (
    SELECT FROM searchapp_data.workers w WHERE w.seen_at > clock_timestamp() - interval '1 minute')
  THEN
    RAISE 'no worker has been seen for a minute, so the query cannot be encoded; start one: searchapp worker'
      USING ERRCODE = 'SA020';
  END IF;
  RETURN made.embedding;
END $$;

COMMENT ON FUNCTION searchapp.answer(text, int) IS
'The embedding of a query that was asked for, null while a worker is waited for; searchapp.embed_query calls it.
Raises SA022, with the worker''s words, where it could not be encoded, and SA020 where there is no worker.';

-- It commits, so it is neither SECURITY DEFINER nor has it a SET clause: every name in it has its schema.
CREATE PROCEDURE searchapp.embed_query(
  query text, collection text DEFAULT NULL, wait_ms int DEFAULT 5000, INOUT embedding public.vector DEFAULT NULL,
  model_id int DEFAULT NULL
)
LANGUAGE plpgsql AS $$
DECLARE
  deadline CONSTANT pg_catalog.timestamptz := pg_catalog.clock_timestamp()
    OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => wait_ms OPERATOR(pg_catalog./) 1e3::pg_catalog.float8);
BEGIN
  model_id := searchapp.ask(query, collection, model_id);
  COMMIT;
  LOOP
    embedding := searchapp.answer(query, model_id);
    EXIT WHEN embedding IS NOT NULL OR pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>) deadline;
    COMMIT;
    PERFORM pg_catalog.pg_sleep(0.001);
  END LOOP;
  IF embedding IS NULL AND collection IS NOT NULL THEN
    RAISE WARNING 'no worker has answered yet; what was asked for stays asked for';
  END IF;
END $$;

COMMENT ON PROCEDURE searchapp.embed_query(text, text, int, public.vector, int) IS
'Has a query encoded by a worker and keeps its embedding, so that searchapp.embed() finds it from then on: for where
embed() has no way to ask by itself. It commits, so it can be called outside of a transaction only.
wait_ms: how many milliseconds a worker is waited for; the embedding is null after that.
model_id: of a model, in the place of the collection''s.';
