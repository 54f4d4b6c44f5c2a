-- Queries that are asked for from SQL, and a cache of the embeddings that workers made of them. Both tell what users ask,
-- so they stand where no reader comes. Whoever asks only adds a row of its own: were a text one row from the beginning,
-- an open transaction that asks for it, anybody's, would keep others from asking. It is a new session each time, so that
-- there is nothing about the table of requests that such a one would have to look up: no key, no sequence.

CREATE UNLOGGED TABLE searchapp_private.query_requests (
  model_id int NOT NULL,
  text_hash bytea NOT NULL,
  text text NOT NULL,
  asked_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX query_requests_model_id_text_hash_idx ON searchapp_private.query_requests (model_id, text_hash);

COMMENT ON TABLE searchapp_private.query_requests IS
'Queries that are to be encoded, by the model of that id; the worker that answers one takes it away.';

COMMENT ON COLUMN searchapp_private.query_requests.text_hash IS 'SHA-256 of the text in UTF-8.';

CREATE TABLE searchapp_private.query_embeddings (
  model_id int NOT NULL,
  text_hash bytea NOT NULL,
  embedding public.vector STORAGE MAIN,
  error text,
  made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (model_id, text_hash),
  CHECK ((embedding IS NULL) <> (error IS NULL))
);

CREATE INDEX query_embeddings_made_at_idx ON searchapp_private.query_embeddings (made_at);

COMMENT ON TABLE searchapp_private.query_embeddings IS
'Queries'' embeddings, or why they could not be made. Workers keep it bounded: the oldest go first.';

COMMENT ON COLUMN searchapp_private.query_embeddings.text_hash IS
'SHA-256 of the query in UTF-8; the text itself is kept while it is asked for only.';

COMMENT ON COLUMN searchapp_private.query_embeddings.error IS
'Why a worker could not encode it; told to whoever asks within ten seconds, after which it may be asked for again.';

CREATE TABLE searchapp_private.secrets (
  secret bytea NOT NULL
);

COMMENT ON TABLE searchapp_private.secrets IS 'What embed() makes names of that nobody else finds; made when the database was migrated.';

INSERT INTO searchapp_private.secrets (secret)
SELECT sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'));

CREATE VIEW searchapp.worker_status WITH (security_invoker) AS
SELECT w.id, w.host, w.started_at, w.seen_at, w.seen_at > clock_timestamp() - interval '1 minute' AS alive, w.doing
FROM searchapp_data.workers w;

COMMENT ON VIEW searchapp.worker_status IS
'The workers that encode queries: the command searchapp worker. One that ends takes its row with it; one that was killed
is not alive after a minute, and its row goes after a day.';
