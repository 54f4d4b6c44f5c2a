-- What a source may be: checked when it is added.

CREATE FUNCTION searchapp_private.check_columns(place regclass, names text[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  lacking text;
BEGIN
  SELECT n.name INTO lacking FROM unnest(names) n (name)
  WHERE n.name IS NULL OR NOT EXISTS (
    SELECT FROM pg_attribute a WHERE a.attrelid = place AND a.attname = n.name AND a.attnum > 0 AND NOT a.attisdropped)
  LIMIT 1;
  IF FOUND THEN
    RAISE 'the table % has no column %; %', place, coalesce(searchapp_data.quoted(lacking), 'null'),
      searchapp_data.near(coalesce(lacking, ''), ARRAY(
        SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = place AND a.attnum > 0 AND NOT a.attisdropped))
      USING ERRCODE = 'undefined_column';
  END IF;
END $$;

COMMENT ON FUNCTION searchapp_private.check_columns(regclass, text[]) IS
'Raises undefined_column, with the near names, for a column that a table does not have.';

CREATE FUNCTION searchapp_private.check_table(place regclass, polled boolean) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relation pg_class;
  schema name;
BEGIN
  SELECT * INTO relation FROM pg_class c WHERE c.oid = place;
  IF NOT FOUND THEN
    RAISE 'the table is null, or gone; expected one that is there' USING ERRCODE = 'undefined_table';
  END IF;
  schema := (SELECT n.nspname FROM pg_namespace n WHERE n.oid = relation.relnamespace);
  IF relation.relpersistence = 't' THEN
    RAISE '% is a temporary table, which workers do not see', place USING ERRCODE = 'wrong_object_type';
  ELSIF schema IN ('searchapp', 'searchapp_data', 'searchapp_private', 'pg_catalog', 'information_schema') THEN
    RAISE 'the table % is in a schema of the system or of searchapp; expected one of your own%',
      format('%I.%I', schema, relation.relname), CASE WHEN schema = 'searchapp' AND relation.relkind IN ('r', 'p')
        THEN format('; run: ALTER TABLE %I.%I SET SCHEMA public', schema, relation.relname) ELSE '' END
      USING ERRCODE = 'wrong_object_type';
  ELSIF relation.relkind NOT IN ('r', 'p', 'v', 'm', 'f') OR NOT polled AND relation.relkind NOT IN ('r', 'p') THEN
    RAISE '% is no table, so it can have no triggers; look for changes by a column with their time: --poll updated_at',
      place USING ERRCODE = 'wrong_object_type';
  ELSIF NOT polled AND relation.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = place) THEN
    RAISE '% has tables that inherit from it, whose changes its triggers do not see; look for changes: --poll updated_at',
      place USING ERRCODE = 'wrong_object_type';
  ELSIF NOT has_table_privilege(place, 'SELECT') THEN
    RAISE 'role % may not read %; run: GRANT SELECT ON % TO %', current_user, place, place, quote_ident(current_user)
      USING ERRCODE = 'insufficient_privilege';
  ELSIF NOT polled AND NOT has_table_privilege(place, 'TRIGGER') THEN
    RAISE 'role % may not put triggers on %; run: GRANT TRIGGER ON % TO %, or look for changes: --poll updated_at',
      current_user, place, place, quote_ident(current_user) USING ERRCODE = 'insufficient_privilege';
  ELSIF row_security_active(place) THEN
    RAISE 'row-level security hides rows of % from role %; run: ALTER ROLE % BYPASSRLS', place, current_user,
      quote_ident(current_user) USING ERRCODE = 'insufficient_privilege';
  END IF;
END $$;

COMMENT ON FUNCTION searchapp_private.check_table(regclass, boolean) IS
'Raises an error for what cannot be a source: a temporary table, one of ours, one that may not be read or watched.';

CREATE FUNCTION searchapp_private.key_types(place regclass, columns text[]) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  types text[];
  unfit record;
BEGIN
  IF coalesce(cardinality(columns), 0) = 0 THEN
    RAISE 'a source needs the columns of its key' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  SELECT a.attname, format_type(a.atttypid, a.atttypmod) AS type INTO unfit
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_collation c ON c.oid = a.attcollation
  WHERE a.attrelid = place AND a.attname = ANY (columns)
    AND NOT (coalesce(nullif(t.typbasetype, 0), t.oid) IN (
      'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'text'::regtype, 'varchar'::regtype, 'uuid'::regtype)
      AND coalesce(c.collisdeterministic, true));
  IF FOUND THEN
    RAISE 'the key % is of the type %; expected whole numbers, text or uuid, whose equal values are written alike',
      unfit.attname, unfit.type USING ERRCODE = 'datatype_mismatch';
  ELSIF NOT searchapp_private.is_key(place, columns) THEN
    RAISE '(%) is no key of %: it needs a primary key, or a unique index and NOT NULL, on just these columns',
      array_to_string(columns, ', '), place USING ERRCODE = 'invalid_parameter_value';
  END IF;
  SELECT array_agg(format_type(a.atttypid, NULL) ORDER BY c.place) INTO types
  FROM unnest(columns) WITH ORDINALITY c (name, place)
  JOIN pg_attribute a ON a.attrelid = key_types.place AND a.attname = c.name;
  RETURN types;
END $$;

COMMENT ON FUNCTION searchapp_private.key_types(regclass, text[]) IS
'The types of a key''s columns; raises an error for columns that are no key of the table.';

CREATE FUNCTION searchapp_private.check_text_columns(place regclass, columns text[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  unfit record;
BEGIN
  IF coalesce(cardinality(columns), 0) = 0 THEN
    RAISE 'a source needs the columns of its text' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  SELECT a.attname, format_type(a.atttypid, a.atttypmod) AS type INTO unfit
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
  WHERE a.attrelid = place AND a.attname = ANY (columns) AND t.typcategory <> 'S';
  IF FOUND THEN
    RAISE 'the column % is of the type %; expected text', unfit.attname, unfit.type USING ERRCODE = 'datatype_mismatch';
  END IF;
END $$;

COMMENT ON FUNCTION searchapp_private.check_text_columns(regclass, text[]) IS
'Raises datatype_mismatch for a column that is no text.';

CREATE FUNCTION searchapp_private.check_poll_column(place regclass, polled_by text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  unfit text;
BEGIN
  SELECT format_type(a.atttypid, a.atttypmod) INTO unfit
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
  WHERE a.attrelid = place AND a.attname = polled_by AND coalesce(nullif(t.typbasetype, 0), t.oid) NOT IN (
    'timestamptz'::regtype, 'timestamp'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype,
    'numeric'::regtype);
  IF FOUND THEN
    RAISE 'the column % is of the type %; expected a timestamp or a number, which grows over all rows with each change',
      polled_by, unfit USING ERRCODE = 'datatype_mismatch';
  END IF;
END $$;

COMMENT ON FUNCTION searchapp_private.check_poll_column(regclass, text) IS
'Raises datatype_mismatch for a column that does not tell which rows have changed: a date is one for a whole day.';

-- PostgreSQL itself knows what depends on a row's own columns alone: the condition of a partial index does.
CREATE FUNCTION searchapp_private.read_condition(
  place regclass, INOUT condition text, OUT columns text[]
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  parsed refcursor;
  problem text;
  written text;
BEGIN
  columns := '{}';
  IF condition IS NULL THEN
    RETURN;
  END IF;
  BEGIN
    -- a cursor is one statement, so what follows a semicolon is refused here
    OPEN parsed FOR EXECUTE format('SELECT FROM %s WHERE (%s) LIMIT 0', place, condition);
    CLOSE parsed;
    EXECUTE format('CREATE TEMPORARY TABLE searchapp_source_check (LIKE %s) ON COMMIT DROP', place);
    EXECUTE format('CREATE INDEX searchapp_source_check_idx ON pg_temp.searchapp_source_check ((1)) WHERE (%s)', condition);
    SELECT array_agg(DISTINCT a.attname::text) INTO columns
    FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE d.classid = 'pg_class'::regclass AND d.objid = 'pg_temp.searchapp_source_check_idx'::regclass
      AND d.refobjid = 'pg_temp.searchapp_source_check'::regclass AND d.refobjsubid > 0;
    SELECT pg_get_expr(i.indpred, i.indrelid) INTO written
    FROM pg_index i WHERE i.indexrelid = 'pg_temp.searchapp_source_check_idx'::regclass;
    DROP TABLE pg_temp.searchapp_source_check;
  EXCEPTION WHEN syntax_error_or_access_rule_violation OR feature_not_supported OR data_exception
    OR invalid_cursor_definition OR invalid_transaction_state
  THEN
    GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT;
    RAISE 'the condition % cannot be used: %; expected one on the row''s own columns, by immutable functions',
      searchapp_data.quoted(condition), replace(problem, 'index predicate', 'the condition')
      USING ERRCODE = 'invalid_parameter_value';
  END;
  condition := written;
  columns := coalesce(columns, '{}');
END $$;

COMMENT ON FUNCTION searchapp_private.read_condition(regclass, text) IS
'A condition as PostgreSQL understood it, and the columns that it depends on; raises invalid_parameter_value for one that
depends on more than its row.';

CREATE FUNCTION searchapp_private.estimated_rows(place regclass, condition text) RETURNS float8
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  plan jsonb;
BEGIN
  EXECUTE format('EXPLAIN (FORMAT json) SELECT FROM %s WHERE %s', place, coalesce(condition, 'true')) INTO plan;
  RETURN plan #>> '{0,Plan,Plan Rows}';
END $$;

COMMENT ON FUNCTION searchapp_private.estimated_rows(regclass, text) IS
'How many rows of a table satisfy a condition, by the planner''s estimate.';

CREATE FUNCTION searchapp_private.check_target(place regclass, collection text, into_column text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  taken text;
  full_up boolean;
BEGIN
  IF into_column IS NOT NULL THEN
    IF NOT EXISTS (
      SELECT FROM pg_attribute a WHERE a.attrelid = place AND a.attname = into_column AND a.attgenerated = ''
        AND a.atttypid = 'public.vector'::regtype)
    THEN
      RAISE 'the column % of % is no vector; add one: ALTER TABLE % ADD % vector(384)', into_column, place, place,
        quote_ident(into_column) USING ERRCODE = 'datatype_mismatch';
    END IF;
    SELECT s.name INTO taken FROM searchapp_data.sources s
    WHERE s.into_column = check_target.into_column AND searchapp_private.table_of(s) = place;
    IF FOUND THEN
      RAISE 'the column % of % is kept by the source % already', into_column, place, taken
        USING ERRCODE = 'duplicate_object';
    END IF;
    RETURN;
  END IF;
  IF collection LIKE '%\_status' OR collection IN (  -- as searchapp_data.create_collection has it
    'collections', 'spaces', 'models', 'sources', 'runs', 'clusters', 'duplicates', 'maps', 'recommendations')
  THEN
    RAISE 'the collection name % is reserved; give another: --collection NAME', searchapp_data.quoted(collection)
      USING ERRCODE = 'invalid_name';
  END IF;
  SELECT s.name INTO taken FROM searchapp_data.sources s WHERE s.collection = check_target.collection;
  IF FOUND THEN
    RAISE 'the collection % is kept by the source % already; give another: --collection NAME', collection, taken
      USING ERRCODE = 'duplicate_object';
  END IF;
  EXECUTE format('SELECT EXISTS (SELECT FROM searchapp_data.documents d WHERE d.collection_id = (
    SELECT c.id FROM searchapp_data.collections c WHERE c.name = %L AND c.state = ''ready''))', collection) INTO full_up;
  IF full_up THEN
    RAISE 'the collection % has documents of its own, which the source would delete; give another (--collection NAME), '
      'or drop it first: searchapp collection drop %', collection, collection
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
END $$;

COMMENT ON FUNCTION searchapp_private.check_target(regclass, text, text) IS
'Raises an error for a collection or a column that a source cannot be kept in.';

CREATE FUNCTION searchapp_private.check_vector_column(place regclass, into_column text, model text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  made_by CONSTANT text := coalesce(model, 'all-MiniLM-L6-v2');
  vector pg_attribute;
  dimensions int;
BEGIN
  SELECT a.* INTO vector FROM pg_attribute a WHERE a.attrelid = place AND a.attname = into_column;
  dimensions := coalesce(
    (SELECT m.dimensions FROM searchapp_data.models m WHERE m.name = made_by ORDER BY m.id DESC LIMIT 1),
    CASE WHEN made_by = 'all-MiniLM-L6-v2' THEN 384 END);
  IF (SELECT c.relkind NOT IN ('r', 'p') FROM pg_class c WHERE c.oid = place) THEN
    RAISE '% is no table, so its column % cannot be written; keep it in a collection', place, into_column
      USING ERRCODE = 'wrong_object_type';
  ELSIF NOT has_column_privilege(place, into_column, 'UPDATE') THEN
    RAISE 'role % may not write the column % of %; run: GRANT UPDATE (%) ON % TO %', current_user, into_column, place,
      quote_ident(into_column), place, quote_ident(current_user) USING ERRCODE = 'insufficient_privilege';
  ELSIF vector.atttypmod <> dimensions AND vector.atttypmod > 0 THEN
    RAISE 'the column % of % has % dimensions; the embeddings of % have %', into_column, place, vector.atttypmod,
      made_by, dimensions USING ERRCODE = 'datatype_mismatch';
  END IF;
END $$;

COMMENT ON FUNCTION searchapp_private.check_vector_column(regclass, text, text) IS
'Raises an error for a vector column that cannot be written, or has other dimensions than the model''s embeddings.';

CREATE FUNCTION searchapp.add_source(
  name text, "table" regclass, key text[], text text[], title text DEFAULT NULL, metadata text[] DEFAULT '{}',
  "where" text DEFAULT NULL, collection text DEFAULT NULL, into_column text DEFAULT NULL, model text DEFAULT NULL,
  poll text DEFAULT NULL
) RETURNS int
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  target CONSTANT text := CASE WHEN into_column IS NULL THEN coalesce(collection, name) END;
  which record;
  columns text[];
  types text[];
  source searchapp_data.sources;
BEGIN
  PERFORM searchapp_data.require_owner();
  IF (coalesce(target, name) ~ '^[a-z][a-z0-9_]{0,50}$' AND name ~ '^[a-z][a-z0-9_]{0,50}$') IS NOT TRUE THEN
    RAISE 'the name % is not allowed: a to z, 0 to 9 and _, a letter first, at most 51', coalesce(
      searchapp_data.quoted(left(CASE WHEN name ~ '^[a-z][a-z0-9_]{0,50}$' THEN target ELSE name END, 60)), 'null')
      USING ERRCODE = 'invalid_name';
  ELSIF collection IS NOT NULL AND into_column IS NOT NULL THEN
    RAISE 'a source is kept in a collection or in a column of its table; leave one of both out'
      USING ERRCODE = 'invalid_parameter_value';
  ELSIF into_column IS NOT NULL AND coalesce(cardinality(metadata), 0) > 0 THEN
    RAISE 'a column of the table itself needs no metadata: its rows can be filtered by their own columns'
      USING ERRCODE = 'invalid_parameter_value';
  ELSIF EXISTS (SELECT FROM searchapp_data.sources s WHERE s.name = add_source.name) THEN
    RAISE 'there is a source % already; see: searchapp source list', name USING ERRCODE = 'duplicate_object';
  END IF;
  PERFORM searchapp_private.check_table("table", poll IS NOT NULL);
  PERFORM searchapp_private.check_columns(
    "table", key || text || array_remove(metadata || title || into_column || poll, NULL));
  types := searchapp_private.key_types("table", key);
  PERFORM searchapp_private.check_text_columns("table", text);
  PERFORM searchapp_private.check_poll_column("table", poll);
  PERFORM searchapp_private.check_target("table", target, into_column);
  IF into_column IS NOT NULL THEN
    PERFORM searchapp_private.check_vector_column("table", into_column, model);
  END IF;
  which := searchapp_private.read_condition("table", "where");
  columns := ARRAY(SELECT DISTINCT w.name FROM unnest(
    key || text || array_remove(metadata || title, NULL) || which.columns) w (name) ORDER BY w.name);
  IF into_column = ANY (columns) THEN
    RAISE 'the column % cannot be read and written by the same source', into_column
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  INSERT INTO searchapp_data.sources (
    name, collection, into_column, model, table_schema, table_name, key, key_types, title, text, metadata, condition,
    watched, polled_by, rows)
  SELECT add_source.name, target, add_source.into_column, add_source.model, n.nspname, c.relname, add_source.key, types,
    add_source.title, add_source.text, coalesce(array_remove(add_source.metadata, NULL), '{}'), which.condition, columns, poll,
    searchapp_private.estimated_rows("table", which.condition)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = "table"
  RETURNING * INTO source;
  PERFORM searchapp_private.ensure_triggers(source);
  RETURN source.id;
END $$;

COMMENT ON FUNCTION searchapp.add_source(
  text, regclass, text[], text[], text, text[], text, text, text, text, text) IS
'Lets workers keep a table in step with a collection, from now on and with the rows that it has: searchapp worker.
key: the columns that identify a row; a document''s key is their text, of several columns that of an array of them.
text: columns that are read, joined by a blank line; a row without any has no document.
title, metadata: columns that become a document''s title and metadata.
where: which rows have documents, by their own columns and immutable functions.
collection: that of the source''s name, unless another is given; it is made where it is absent, by the model or the
default. into_column: a vector column of the table itself instead.
poll: a column with the time of a row''s last change, or with a number that grows over all rows, for tables that can
have no triggers; deletions are then found by comparing keys now and then.
Gives the source''s id. For members of searchapp_owner who may read the table and put triggers on it.';

CREATE FUNCTION searchapp.pause_source(name text, drop_triggers boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  source searchapp_data.sources;
BEGIN
  PERFORM searchapp_data.require_owner();
  source := searchapp_private.find_source(name);
  UPDATE searchapp_data.sources s SET state = 'paused', reason = NULL WHERE s.id = source.id;
  IF drop_triggers THEN
    PERFORM searchapp_private.drop_triggers(source);
  END IF;
END $$;

COMMENT ON FUNCTION searchapp.pause_source(text, boolean) IS
'Lets workers leave a source alone; what changes meanwhile is noted, unless its triggers are dropped, which a change of
a watched column''s type needs.';

CREATE FUNCTION searchapp.resume_source(name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  source searchapp_data.sources;
  problem text;
BEGIN
  PERFORM searchapp_data.require_owner();
  source := searchapp_private.find_source(name);
  problem := searchapp_private.source_problem(source);
  IF problem IS NOT NULL THEN
    RAISE '%; mend that, or remove the source: searchapp source remove %', problem, source.name
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  source.key_types := searchapp_private.key_types(searchapp_private.table_of(source), source.key);
  PERFORM searchapp_private.ensure_triggers(source);
  -- nothing tells what was missed, so all is compared
  UPDATE searchapp_data.sources s
  SET state = 'running', reason = NULL, checked_at = NULL, polled_until = NULL, polled_latest = NULL,
    polled_at = NULL, key_types = source.key_types
  WHERE s.id = source.id;
END $$;

COMMENT ON FUNCTION searchapp.resume_source(text) IS
'Lets workers go on with a source that was paused, or is broken and mended; they compare it with its table as a whole.';

CREATE FUNCTION searchapp.remove_source(name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  source searchapp_data.sources;
BEGIN
  PERFORM searchapp_data.require_owner();
  source := searchapp_private.find_source(name);
  PERFORM searchapp_private.drop_triggers(source);
  DELETE FROM searchapp_data.sources s WHERE s.id = source.id;
  DELETE FROM searchapp_data.changes c WHERE c.source_id = source.id;
  DELETE FROM searchapp_data.failures f WHERE f.source_id = source.id;
  DELETE FROM searchapp_data.source_rows r WHERE r.source_id = source.id;
END $$;

COMMENT ON FUNCTION searchapp.remove_source(text) IS
'Takes a source and its triggers away; its collection stays, and is like any other from then on.';
