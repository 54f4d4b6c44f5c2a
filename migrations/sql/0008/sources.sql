-- Sources: tables of users that are kept in step with a collection, or with a vector column of their own.
--
-- Triggers on such a table append to searchapp_data.changes which of its rows have changed; workers take that from there,
-- read the rows as they are now, and encode. What is called here by a member of searchapp_owner has that one's rights:
-- triggers on a table take the right to put them there.

-- It stands in the triggers' functions, which have the owner's rights and no search_path of their own: a type without its
-- schema would be whatever the user's session calls so.
CREATE FUNCTION searchapp_private.key_of(alias text, columns text[]) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT CASE cardinality(columns)
  WHEN 1 THEN format('%s.%I::pg_catalog.text', alias, columns[1])
  ELSE (
    SELECT format('ARRAY[%s]::pg_catalog.text', string_agg(format('%s.%I::pg_catalog.text', alias, c.name), ', '
      ORDER BY c.place))
    FROM unnest(columns) WITH ORDINALITY c (name, place))
END
$$;

COMMENT ON FUNCTION searchapp_private.key_of(text, text[]) IS
'The expression for the key of a source''s row: the column''s text, or an array of several columns'', written as text.';

CREATE FUNCTION searchapp_private.lane_of(key text) RETURNS smallint
LANGUAGE sql IMMUTABLE AS $$
-- without a SET clause it is put into the statements that call it; so all names have their schemas
SELECT (pg_catalog.hashtextextended(key COLLATE pg_catalog."C", 0) OPERATOR(pg_catalog.&) 15)::pg_catalog.int2
$$;

COMMENT ON FUNCTION searchapp_private.lane_of(text) IS
'Which of the 16 lanes a key is in. One worker at a time has a lane of a source, so that a key is in one hand.';

CREATE FUNCTION searchapp_data.require_owner() RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF to_regrole('searchapp_owner') IS NOT NULL AND NOT pg_has_role('searchapp_owner', 'USAGE') THEN
    RAISE 'role % may not change sources', current_user
      USING ERRCODE = 'insufficient_privilege', HINT = 'Those who may are members of searchapp_owner.';
  END IF;
END $$;

COMMENT ON FUNCTION searchapp_data.require_owner() IS
'Raises insufficient_privilege for who is no member of searchapp_owner.';

CREATE FUNCTION searchapp_private.find_source(name text) RETURNS searchapp_data.sources
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  source searchapp_data.sources;
BEGIN
  IF name IS NULL THEN
    RAISE 'the source is null; expected its name' USING ERRCODE = 'null_value_not_allowed';
  END IF;
  SELECT s.* INTO source FROM searchapp_data.sources s WHERE s.name = find_source.name;
  IF NOT FOUND THEN
    RAISE 'no source %; %', searchapp_data.quoted(name),
      searchapp_data.near(name, ARRAY(SELECT s.name FROM searchapp_data.sources s ORDER BY s.name LIMIT 1000))
      USING ERRCODE = 'undefined_object', HINT = 'SELECT name FROM searchapp.sources';
  END IF;
  RETURN source;
END $$;

COMMENT ON FUNCTION searchapp_private.find_source(text) IS
'A source; raises undefined_object, with the near names, where there is none of that name.';

CREATE FUNCTION searchapp_private.table_of(source searchapp_data.sources) RETURNS regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
-- to_regclass would raise an error for who may not use the schema
SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = source.table_schema AND c.relname = source.table_name
$$;

COMMENT ON FUNCTION searchapp_private.table_of(searchapp_data.sources) IS
'The table of a source, null where there is none of that name any more.';

-- What is in the way of reading rows as the source says, for the user's statements and migrations never are.
CREATE FUNCTION searchapp_private.source_problem(source searchapp_data.sources) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  shown CONSTANT text := format('%I.%I', source.table_schema, source.table_name);
  place CONSTANT regclass := searchapp_private.table_of(source);
  moved regclass;
  lacking text;
BEGIN
  IF place IS NULL THEN
    SELECT t.tgrelid INTO moved FROM pg_trigger t
    WHERE t.tgfoid = to_regprocedure(format('searchapp_private.source_%s_row()', source.id)) AND t.tgparentid = 0
    ORDER BY t.tgrelid LIMIT 1;
    RETURN CASE WHEN moved IS NULL THEN format('the table %s is gone', shown)
      ELSE format('the table %s is called %s now', shown, moved) END;
  END IF;
  SELECT string_agg(quote_ident(w.name), ', ' ORDER BY w.name) INTO lacking
  FROM unnest(source.watched || source.into_column || source.polled_by) w (name)
  WHERE w.name IS NOT NULL AND NOT EXISTS (
    SELECT FROM pg_attribute a WHERE a.attrelid = place AND a.attname = w.name AND a.attnum > 0 AND NOT a.attisdropped
  );
  IF lacking IS NOT NULL THEN
    RETURN format('the table %s has no %s any more', shown, lacking);
  ELSIF NOT searchapp_private.is_key(place, source.key) THEN
    RETURN format('%s is no key of the table %s any more', array_to_string(source.key, ', '), shown);
  ELSIF NOT has_schema_privilege(source.table_schema, 'USAGE') THEN
    RETURN format('role %s may not use the schema %I; run: GRANT USAGE ON SCHEMA %2$I TO %1$I', current_user,
      source.table_schema);
  ELSIF NOT has_table_privilege(place, 'SELECT') THEN
    RETURN format('role %s may not read the table %s; run: GRANT SELECT ON %2$s TO %1$I', current_user, shown);
  ELSIF row_security_active(place) THEN
    RETURN format('row-level security hides rows of %s from role %s; run: ALTER ROLE %2$I BYPASSRLS', shown,
      current_user);
  ELSIF source.into_column IS NOT NULL AND NOT has_column_privilege(place, source.into_column, 'UPDATE') THEN
    RETURN format('role %s may not write the column %I of %s; run: GRANT UPDATE (%2$I) ON %3$s TO %1$I', current_user,
      source.into_column, shown);
  END IF;
  RETURN NULL;
END $$;

COMMENT ON FUNCTION searchapp_private.source_problem(searchapp_data.sources) IS
'What keeps whoever asks from reading the rows of a source, in a line; null: nothing.';

CREATE FUNCTION searchapp_private.is_key(place regclass, columns text[]) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT c.relkind NOT IN ('r', 'p') OR EXISTS (
  SELECT FROM pg_index i
  WHERE i.indrelid = place AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
    AND (
      SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_attribute a
      WHERE a.attrelid = place AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1]) AND a.attnotnull
    ) = (SELECT array_agg(k.name ORDER BY k.name::name) FROM unnest(columns) k (name))
    AND i.indnkeyatts = cardinality(columns)
)
FROM pg_class c WHERE c.oid = place
$$;

COMMENT ON FUNCTION searchapp_private.is_key(regclass, text[]) IS
'Whether columns identify the rows of a table: they have a unique index and are NOT NULL. Of a view that is believed.';
