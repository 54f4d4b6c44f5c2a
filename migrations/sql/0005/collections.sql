-- What makes collections, spaces and their indexes. A writer owns no table, so these have the owner's rights; a writer
-- may call them directly, so they check what they are given, and nothing of it becomes SQL but quoted.

CREATE FUNCTION searchapp_private.check_language(language text) RETURNS void
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_ts_config c JOIN pg_namespace n ON n.oid = c.cfgnamespace
    WHERE check_language.language =
      CASE n.nspname WHEN 'pg_catalog' THEN '' ELSE quote_ident(n.nspname) || '.' END || quote_ident(c.cfgname)
  ) THEN
    RAISE EXCEPTION 'no text search configuration % in this database', coalesce(quote_literal(language), 'NULL')
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
END $$;
COMMENT ON FUNCTION searchapp_private.check_language(text) IS
  'Raise where there is no text search configuration of that name; one outside of pg_catalog is written schema.name.';

CREATE FUNCTION searchapp_private.make_partition(parent text, id int, constraints text DEFAULT '') RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  made text := format('searchapp_data.%I', parent || '_' || id);
BEGIN
  -- made as a plain table and attached empty: CREATE TABLE ... PARTITION OF would lock every search of every collection
  EXECUTE format('CREATE TABLE %s (LIKE searchapp_data.%I INCLUDING ALL%s)', made, parent, constraints);
  CASE parent
    WHEN 'documents' THEN
      -- at the default of 100 the planner misjudged small values of a filter (a section of 354 among 63,000)
      EXECUTE format('ALTER TABLE %s ALTER COLUMN metadata SET STATISTICS 1000', made);
    WHEN 'chunks' THEN
      EXECUTE format('ALTER TABLE %s ALTER COLUMN embedding SET STORAGE PLAIN', made);
    ELSE
      NULL;
  END CASE;
  EXECUTE format('ALTER TABLE searchapp_data.%I ATTACH PARTITION %s FOR VALUES IN (%s)', parent, made, id);
  -- a writer looks after it (VACUUM, ANALYZE); its rows are reached by the parent, whose policies hold there
  IF current_setting('server_version_num')::int >= 170000 AND to_regrole('searchapp_writer') IS NOT NULL THEN
    EXECUTE format('GRANT MAINTAIN ON TABLE %s TO searchapp_writer', made);
  END IF;
END $$;
COMMENT ON FUNCTION searchapp_private.make_partition(text, int, text) IS
  'Make the partition of documents or postings for a collection, or that of chunks for a space, by its id. The '
  'constraints, if any, are SQL that begins with a comma.';

CREATE FUNCTION searchapp_private.make_field_index(collection_id int, name text, type text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  hash text := encode(sha256(convert_to(name, 'UTF8')), 'hex');
  made text := format('documents_%s_field_%s', collection_id, left(hash, 12));
BEGIN
  EXECUTE format('CREATE INDEX %I ON searchapp_data.%I ((%s))', made, 'documents_' || collection_id,
    searchapp_data.field_expression(name, type));
  -- as for metadata
  EXECUTE format('ALTER INDEX searchapp_data.%I ALTER COLUMN 1 SET STATISTICS 1000', made);
END $$;
COMMENT ON FUNCTION searchapp_private.make_field_index(int, text, text) IS
  'Make the index of a declared field; it bears the same name as when Python makes it.';

CREATE FUNCTION searchapp_data.create_space(collection_id int, model_id int, chunking jsonb) RETURNS int
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  made int;
  size int := (SELECT m.dimensions FROM searchapp_data.models m WHERE m.id = create_space.model_id);
BEGIN
  IF size IS NULL OR size NOT BETWEEN 1 AND 2000 THEN
    RAISE EXCEPTION 'model % has % dimensions; expected a model of 1 to 2,000, which is what can be indexed',
      create_space.model_id, coalesce(size::text, 'no') USING ERRCODE = 'invalid_parameter_value';
  END IF;
  -- jsonb writes the shorter key first
  IF (create_space.chunking::text ~ '^\{"tokens": [0-9]{1,6}, "overlap": [0-9]{1,6}\}$') IS NOT TRUE THEN
    RAISE EXCEPTION 'the chunking is %; expected such as {"tokens": 254, "overlap": 31}',
      coalesce(left(create_space.chunking::text, 60), 'NULL') USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF NOT EXISTS (
    SELECT FROM searchapp_data.collections c WHERE c.id = create_space.collection_id AND c.state = 'ready'
  ) THEN
    RAISE EXCEPTION 'no collection of the id %', create_space.collection_id USING ERRCODE = 'invalid_parameter_value';
  END IF;
  INSERT INTO searchapp_data.spaces (collection_id, model_id, chunking)
  VALUES (create_space.collection_id, create_space.model_id, create_space.chunking)
  RETURNING id INTO made;
  PERFORM searchapp_private.make_partition('chunks', made, format(
    ', CONSTRAINT embedding_check CHECK (public.vector_dims(embedding) = %s AND public.vector_norm(embedding) > 0)',
    size
  ));
  RETURN made;
END $$;
COMMENT ON FUNCTION searchapp_data.create_space(int, int, jsonb) IS
  'Make a space of a collection, as a model sees it, with the partition of its chunks; gives its id. The chunking says '
  'how many tokens a passage has, and how many of these neighbours share; with 0 tokens a document is one passage.';

CREATE FUNCTION searchapp_data.create_collection(
  name text, language text, declared jsonb, model_id int, chunking jsonb
) RETURNS int
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  made int;
  space int;
  field record;
  fields jsonb := coalesce(declared, '{}');
BEGIN
  IF (create_collection.name COLLATE "C" ~ '^[a-z][a-z0-9_]{0,50}$') IS NOT TRUE
    OR create_collection.name IN (
      'collections', 'spaces', 'models', 'sources', 'runs', 'clusters', 'duplicates', 'maps', 'recommendations'
    )
    OR create_collection.name LIKE '%\_status'
  THEN
    RAISE EXCEPTION 'the collection name % is reserved, or not allowed: a to z, 0 to 9, _, a letter first, at most 51',
      coalesce(quote_literal(left(create_collection.name, 60)), 'NULL') USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF create_collection.language IS NOT NULL THEN
    PERFORM searchapp_private.check_language(create_collection.language);
  END IF;
  IF jsonb_typeof(fields) <> 'object' THEN
    RAISE EXCEPTION 'the declared fields are %; expected such as {"year": "number"}', left(fields::text, 60)
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  FOR field IN SELECT f.key, f.value FROM jsonb_each_text(fields) f LOOP
    IF (length(field.key) BETWEEN 1 AND 200 AND field.key !~ '^\$|[[:cntrl:]]'
        AND field.value IN ('number', 'text', 'date')) IS NOT TRUE THEN
      RAISE EXCEPTION 'the field % cannot be declared as %; expected a name of at most 200 characters, and number, '
        'text or date', quote_literal(left(field.key, 60)), coalesce(quote_literal(left(field.value, 60)), 'null')
        USING ERRCODE = 'invalid_parameter_value';
    END IF;
  END LOOP;
  INSERT INTO searchapp_data.collections (name, settings, language)
  VALUES (create_collection.name, jsonb_build_object('fields', fields), create_collection.language)
  ON CONFLICT (name) WHERE state = 'ready' DO NOTHING
  RETURNING id INTO made;
  IF made IS NULL THEN
    RETURN NULL;
  END IF;
  PERFORM searchapp_private.make_partition('documents', made);
  FOR field IN SELECT f.key, f.value FROM jsonb_each_text(fields) f ORDER BY f.key LOOP
    PERFORM searchapp_private.make_field_index(made, field.key, field.value);
  END LOOP;
  IF create_collection.language IS NOT NULL THEN
    PERFORM searchapp_private.make_partition('postings', made);
  END IF;
  space := searchapp_data.create_space(made, create_collection.model_id, create_collection.chunking);
  UPDATE searchapp_data.collections SET active_space = space WHERE id = made;
  IF to_regprocedure('searchapp_private.show_collection(int)') IS NOT NULL THEN
    PERFORM searchapp_private.show_collection(made);
  END IF;
  RETURN made;
END $$;
COMMENT ON FUNCTION searchapp_data.create_collection(text, text, jsonb, int, jsonb) IS
  'Make a collection with its first space and all their partitions; gives its id, or NULL where one of that name is '
  'there already. The language is the text search configuration that its words are read by, NULL where it has none; '
  'declared are its fields with an index each, such as {"year": "number"}; model and chunking are the first space''s.';

CREATE FUNCTION searchapp_data.give_words(collection_id int, language text) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM searchapp_private.check_language(give_words.language);
  IF NOT EXISTS (
    SELECT FROM searchapp_data.collections c WHERE c.id = give_words.collection_id AND c.state = 'ready'
  ) THEN
    RAISE EXCEPTION 'no collection of the id %', give_words.collection_id USING ERRCODE = 'invalid_parameter_value';
  END IF;
  -- waits for those who write to it, and who do not know yet that their documents are to have words
  EXECUTE format('LOCK TABLE searchapp_data.%I IN SHARE ROW EXCLUSIVE MODE', 'documents_' || give_words.collection_id);
  UPDATE searchapp_data.collections c
  SET language = give_words.language, backfilled_until = '00000000-0000-0000-0000-000000000000'
  WHERE c.id = give_words.collection_id AND c.state = 'ready' AND c.language IS NULL;
  IF FOUND THEN
    PERFORM searchapp_private.make_partition('postings', give_words.collection_id);
  END IF;
END $$;
COMMENT ON FUNCTION searchapp_data.give_words(int, text) IS
  'Let a collection without words have them from now on, read by a text search configuration; its documents'' are made '
  'by: searchapp index words.';

CREATE FUNCTION searchapp_data.build_index(space_id int) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  size int := (
    SELECT m.dimensions FROM searchapp_data.spaces s JOIN searchapp_data.models m ON m.id = s.model_id
    WHERE s.id = build_index.space_id
  );
  chunks text;
  many bigint;
BEGIN
  IF size IS NULL THEN
    RAISE EXCEPTION 'no space of the id %', build_index.space_id USING ERRCODE = 'invalid_parameter_value';
  END IF;
  chunks := format('searchapp_data.%I', 'chunks_' || build_index.space_id);
  -- of those who would build it, the first does; it cannot deadlock with writers, for it has written nothing yet
  EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', chunks);
  EXECUTE format('SELECT count(*) FROM %s', chunks) INTO many;
  IF many = 0 OR NOT EXISTS (
    SELECT FROM searchapp_data.spaces s WHERE s.id = build_index.space_id AND s.state = 'building'
  ) THEN
    RETURN false;
  END IF;
  -- In memory a node takes its vector and, at m = 16, some 700 bytes; a graph that does not fit is built far slower.
  -- The machine is not ours to measure: what its shared buffers take is a bound that its owner has set.
  PERFORM set_config('maintenance_work_mem', greatest(
    pg_size_bytes(current_setting('maintenance_work_mem')),
    least(pg_size_bytes(current_setting('shared_buffers')), many * (4 * size + 700))
  ) / 1024 || 'kB', true);
  EXECUTE format(
    'CREATE INDEX %I ON %s USING hnsw ((embedding::public.vector(%s)) public.vector_cosine_ops)',
    format('space_%s_hnsw', build_index.space_id), chunks, size
  );
  UPDATE searchapp_data.spaces s SET state = 'ready' WHERE s.id = build_index.space_id;
  RETURN true;
END $$;
COMMENT ON FUNCTION searchapp_data.build_index(int) IS
  'Build the HNSW index of a space, unless it is there or the space is empty; says whether it did. Searches go on, '
  'exactly; who writes to this space waits.';
