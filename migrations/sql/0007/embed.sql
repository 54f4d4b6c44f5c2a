-- embed(): the embedding of a query, from the cache, else from a worker.

CREATE FUNCTION searchapp_private.patience() RETURNS interval
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  given CONSTANT text := nullif(current_setting('searchapp.timeout', true), '');
BEGIN
  RETURN least(coalesce(given, '5 s')::interval, '1 hour');
EXCEPTION WHEN invalid_datetime_format OR datetime_field_overflow OR interval_field_overflow THEN
  RAISE 'searchapp.timeout is %; expected a time such as 5s or 500ms', quote_literal(given)
    USING ERRCODE = 'invalid_parameter_value';
END $$;

COMMENT ON FUNCTION searchapp_private.patience() IS
'How long embed() waits for a worker: the setting searchapp.timeout, five seconds where it is not set.';

CREATE FUNCTION searchapp_private.ask_by_link(query text, model_id int) RETURNS public.vector
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  patience CONSTANT interval := searchapp_private.patience();
  deadline CONSTANT timestamptz := clock_timestamp() + patience;
  problem text := searchapp_private.link_problem();
  embedding public.vector;
BEGIN
  PERFORM searchapp_private.check_request(query, model_id);
  IF problem IS NOT NULL THEN
    RAISE '%; run: searchapp db embed-link', problem
      USING ERRCODE = 'SA021', HINT = 'Without it, outside of a transaction: CALL searchapp.embed_query(...).';
  END IF;
  LOOP
    BEGIN  -- dblink takes no notice of a cancellation, so it waits for a moment only
      SELECT t.embedding INTO embedding FROM searchapp_private.dblink('searchapp_self', format(
        'CALL searchapp.embed_query(%L, wait_ms => %s, model_id => %s)', query,
        greatest(least(200, 1000 * extract(epoch FROM deadline - clock_timestamp())), 0)::int, model_id)
      ) AS t (embedding public.vector);
    EXCEPTION WHEN sqlclient_unable_to_establish_sqlconnection THEN
      GET STACKED DIAGNOSTICS problem = PG_EXCEPTION_DETAIL;
      IF clock_timestamp() > deadline OR problem !~ 'FATAL: .*(too many|reserved|starting up|shutting down)' THEN
        RAISE 'the session by which a worker is asked cannot be opened (%); if that stays so, run: '
          'searchapp db embed-link', replace(problem, E'\n', ' ') USING ERRCODE = 'SA021';
      END IF;
      PERFORM pg_sleep(0.02 + 0.03 * random());  -- others have all of them just now
    END;
    IF embedding IS NOT NULL THEN
      RETURN embedding;
    ELSIF clock_timestamp() > deadline THEN
      RAISE 'no worker has answered within % s%; start one, or one more: searchapp worker',
        trim_scale(extract(epoch FROM patience)), coalesce((
          SELECT format(' (one is %s)', min(w.doing)) FROM searchapp_data.workers w
          WHERE w.seen_at > clock_timestamp() - interval '1 minute' AND w.doing <> 'answering' HAVING count(*) > 0
        ), '')
        USING ERRCODE = 'SA020', HINT = 'SELECT * FROM searchapp.worker_status; SET searchapp.timeout = ''30s''.';
    END IF;
  END LOOP;
END $$;

COMMENT ON FUNCTION searchapp_private.ask_by_link(text, int) IS
'The embedding of a query by a worker, asked for in a second session; see searchapp_private.link_problem.
Raises SA020 where no worker answers, SA021 where there is no second session to be had.';

CREATE FUNCTION searchapp_private.embed_in_snapshot(query text, model_id int) RETURNS public.vector
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  name text;
  embedding public.vector;
BEGIN
  SELECT 'searchapp.kept_' || encode(sha256(s.secret || convert_to(
    concat_ws(' ', pg_backend_pid(), transaction_timestamp(), model_id, query), 'UTF8')), 'hex') INTO name
  FROM searchapp_private.secrets s;
  embedding := nullif(current_setting(name, true), '')::public.vector;
  IF embedding IS NULL THEN
    embedding := searchapp_private.ask_by_link(query, model_id);
    PERFORM set_config(name, embedding::text, true);
  END IF;
  RETURN embedding;
END $$;

COMMENT ON FUNCTION searchapp_private.embed_in_snapshot(text, int) IS
'The embedding of a query that a transaction''s snapshot does not show: asked for once, then kept in a setting of this
transaction. Anybody may set settings, but none finds one whose name has a secret in it: nothing lists them.';

CREATE FUNCTION searchapp_private.embed_unseen(query text, model_id int) RETURNS public.vector
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  embedding public.vector;
BEGIN
  IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
    RETURN searchapp_private.embed_in_snapshot(query, model_id);
  END IF;
  -- what has been written since the statement began; it may be this statement that asked for it, a row ago
  SELECT q.embedding INTO embedding FROM searchapp_private.query_embeddings q
  WHERE q.model_id = embed_unseen.model_id AND q.text_hash = sha256(convert_to(query, 'UTF8'));
  RETURN coalesce(embedding, searchapp_private.ask_by_link(query, model_id));
END $$;

COMMENT ON FUNCTION searchapp_private.embed_unseen(text, int) IS
'The embedding of a query that a statement''s snapshot does not show.';

CREATE FUNCTION searchapp.embed(query text, collection text) RETURNS public.vector
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SECURITY DEFINER COST 1000 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  model_id int;
  embedding public.vector;
BEGIN
  SELECT s.model_id, q.embedding INTO model_id, embedding
  FROM searchapp_data.collections c
  JOIN searchapp_data.spaces s ON s.id = c.active_space
  LEFT JOIN searchapp_private.query_embeddings q
    ON q.model_id = s.model_id AND q.text_hash = sha256(convert_to(query, 'UTF8'))
  WHERE c.name = collection AND c.state = 'ready';
  IF embedding IS NULL THEN
    model_id := coalesce(model_id, (searchapp_data.find_space(collection)).model_id);
    embedding := searchapp_private.embed_unseen(query, model_id);
  END IF;
  RETURN embedding;
END $$;

COMMENT ON FUNCTION searchapp.embed(text, text) IS
'The embedding of a query by the model that a collection is searched by, for ORDER BY embedding <=> embed(...) LIMIT.
A query that is new is encoded by a worker: searchapp worker. It is waited for as long as the setting searchapp.timeout
says, 5s unless it is set, and kept for the next time.
query: at most 8,000 characters. (SELECT searchapp.embed(...)) is evaluated once a statement.';

CREATE FUNCTION searchapp.embed_with(query text, model text) RETURNS public.vector
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SECURITY DEFINER COST 1000 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  model_id int;
  embedding public.vector;
BEGIN
  SELECT m.id, q.embedding INTO model_id, embedding
  FROM searchapp_data.models m
  LEFT JOIN searchapp_private.query_embeddings q
    ON q.model_id = m.id AND q.text_hash = sha256(convert_to(query, 'UTF8'))
  WHERE m.name = model  -- of several with other weights one in use
  ORDER BY EXISTS (SELECT FROM searchapp_data.active_spaces a WHERE a.model_id = m.id) DESC, m.id DESC LIMIT 1;
  IF model IS NULL THEN
    RAISE 'the model is null; expected its name' USING ERRCODE = 'null_value_not_allowed';
  ELSIF model_id IS NULL THEN
    RAISE 'no collection has the model %; %', searchapp_data.quoted(model),
      searchapp_data.near(model, ARRAY(SELECT DISTINCT m.name FROM searchapp_data.models m))
      USING ERRCODE = 'undefined_object', HINT = 'SELECT name FROM searchapp.models';
  END IF;
  RETURN coalesce(embedding, searchapp_private.embed_unseen(query, model_id));
END $$;

COMMENT ON FUNCTION searchapp.embed_with(text, text) IS
'The embedding of a query by a model, named as in searchapp.models; else as searchapp.embed.';
