-- The triggers of a source. They only append: no unique key, no lock and no NOTIFY, so they neither block nor fail a
-- transaction of the user's, whatever its isolation level, and PREPARE TRANSACTION works. Whoever may write to the table
-- sets them off; the function has the owner's rights.

CREATE FUNCTION searchapp_private.make_trigger_functions(source searchapp_data.sources) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  of_rows CONSTANT text := format('searchapp_private.source_%s_row()', source.id);
  of_statements CONSTANT text := format('searchapp_private.source_%s_statement()', source.id);
  on_rows text;
  on_statements text;
  made text;
BEGIN
  -- Keys are read in a block of their own, which writes nothing: a renamed column must not fail the user's statement, and
  -- a block that writes would cost each row a transaction id.
  -- A SET clause costs each row as much as half of what is done here, so all names have their schemas instead, those of
  -- types and operators too: the session's own would be called with the owner's rights.
  on_rows := format($body$
    DECLARE
      before pg_catalog.text;
      after pg_catalog.text;
    BEGIN
      BEGIN
        IF TG_OP OPERATOR(pg_catalog.<>) 'INSERT' THEN
          before := %2$s;
        END IF;
        IF TG_OP OPERATOR(pg_catalog.<>) 'DELETE' THEN
          after := %3$s;
        END IF;
      EXCEPTION WHEN undefined_column THEN
        PERFORM searchapp_private.note_lost_key(%1$s);
        RETURN NULL;
      END;
      IF after IS NOT NULL THEN
        INSERT INTO searchapp_data.changes (source_id, lane, key)
        VALUES (%1$s, searchapp_private.lane_of(after), after);
      END IF;
      IF before OPERATOR(pg_catalog.<>) after OR after IS NULL THEN
        INSERT INTO searchapp_data.changes (source_id, lane, key)
        VALUES (%1$s, searchapp_private.lane_of(before), before);
      END IF;
      RETURN NULL;
    END $body$, source.id, searchapp_private.key_of('OLD', source.key), searchapp_private.key_of('NEW', source.key));
  on_statements := format($body$
    DECLARE
      keys text[];
    BEGIN
      IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO searchapp_data.changes (source_id, lane) SELECT %1$s, lane FROM generate_series(0, 15) lane;
        RETURN NULL;
      END IF;
      BEGIN
        keys := ARRAY(SELECT %2$s FROM searchapp_rows r);
      EXCEPTION WHEN undefined_column THEN
        PERFORM searchapp_private.note_lost_key(%1$s);
        RETURN NULL;
      END;
      INSERT INTO searchapp_data.changes (source_id, lane, key)
      SELECT %1$s, searchapp_private.lane_of(k.key), k.key FROM unnest(keys) k (key);
      RETURN NULL;
    END $body$, source.id, searchapp_private.key_of('r', source.key));
  -- the bodies as literals, for a column may be called $body$, or anything
  EXECUTE format('CREATE FUNCTION %s RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS %L', of_rows, on_rows);
  EXECUTE format('CREATE FUNCTION %s RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER '
    'SET search_path = pg_catalog, pg_temp AS %L', of_statements, on_statements);
  FOREACH made IN ARRAY ARRAY[of_rows, of_statements] LOOP
    EXECUTE format('COMMENT ON FUNCTION %s IS %L', made,
      format('Notes what changes in the table of the source %s.', source.name));
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', made);
    IF to_regrole('searchapp_owner') IS NOT NULL THEN
      EXECUTE format('ALTER FUNCTION %s OWNER TO searchapp_owner', made);
    END IF;
  END LOOP;
END $$;

COMMENT ON FUNCTION searchapp_private.make_trigger_functions(searchapp_data.sources) IS
'Makes the functions that a source''s triggers call.';

-- Once a transaction is often enough. Looking whether there is one already would be a reading of what others write, which
-- fails transactions at SERIALIZABLE; so a setting of the transaction's says it.
CREATE FUNCTION searchapp_private.note_lost_key(source_id int) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  setting CONSTANT text := format('searchapp.lost_key_%s', source_id);
BEGIN
  IF current_setting(setting, true) IS DISTINCT FROM pg_current_xact_id()::text THEN
    INSERT INTO searchapp_data.changes (source_id, lane) VALUES (note_lost_key.source_id, 0);
    PERFORM set_config(setting, pg_current_xact_id()::text, true);
  END IF;
END $$;

COMMENT ON FUNCTION searchapp_private.note_lost_key(int) IS
'Has a worker look at a source, whose key''s columns are called otherwise now.';

CREATE FUNCTION searchapp_private.make_triggers(source searchapp_data.sources) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  place CONSTANT regclass := searchapp_private.table_of(source);
  partitioned CONSTANT boolean := (SELECT c.relkind = 'p' FROM pg_class c WHERE c.oid = place);
  -- a statement on the parent sets off no statement trigger of its children
  by_row CONSTANT boolean := partitioned OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = place);
  before CONSTANT text := (SELECT string_agg(format('OLD.%I', w.name), ', ') FROM unnest(source.watched) w (name));
  after CONSTANT text := (SELECT string_agg(format('NEW.%I', w.name), ', ') FROM unnest(source.watched) w (name));
  wanted record;
  made int := 0;
BEGIN
  FOR wanted IN
    SELECT place AS place, format('searchapp_%s_%s', source.id, v.event) AS name, v.event, v.rest
    FROM (VALUES
      -- no list of columns, which would miss what a BEFORE trigger changes; images, for not every type has an equality
      ('update', format('FOR EACH ROW WHEN (pg_catalog.record_image_ne(ROW(%s), ROW(%s)))', before, after)),
      ('insert', CASE WHEN by_row THEN 'FOR EACH ROW' ELSE
        'REFERENCING NEW TABLE AS searchapp_rows FOR EACH STATEMENT' END),
      ('delete', CASE WHEN by_row THEN 'FOR EACH ROW' ELSE
        'REFERENCING OLD TABLE AS searchapp_rows FOR EACH STATEMENT' END),
      ('truncate', 'FOR EACH STATEMENT')
    ) v (event, rest)
    WHERE v.event <> 'truncate' OR NOT partitioned
    UNION ALL
    SELECT p.relid, format('searchapp_%s_truncate', source.id), 'truncate', 'FOR EACH STATEMENT'
    FROM pg_partition_tree(place) p JOIN pg_class c ON c.oid = p.relid
    WHERE partitioned AND p.isleaf AND c.relkind = 'r'
  LOOP
    -- a table that became a partition since has others beside those that it had: dropping them takes its owner
    wanted.name := wanted.name || CASE WHEN by_row AND wanted.event IN ('insert', 'delete') THEN '_row' ELSE '' END;
    CONTINUE WHEN EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = wanted.place AND t.tgname = wanted.name);
    EXECUTE format('CREATE TRIGGER %I AFTER %s ON %s %s EXECUTE FUNCTION searchapp_private.source_%s_%s()',
      wanted.name, wanted.event, wanted.place, wanted.rest, source.id,
      CASE WHEN wanted.rest LIKE 'FOR EACH ROW%' THEN 'row' ELSE 'statement' END);
    made := made + 1;
  END LOOP;
  RETURN made;
END $$;

COMMENT ON FUNCTION searchapp_private.make_triggers(searchapp_data.sources) IS
'Makes those of a source''s triggers that its table, or a new partition of that, does not have; how many these were.';

CREATE FUNCTION searchapp_private.ensure_triggers(source searchapp_data.sources) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF source.polled_by IS NOT NULL THEN
    RETURN 0;
  END IF;
  IF to_regprocedure(format('searchapp_private.source_%s_row()', source.id)) IS NULL THEN
    PERFORM searchapp_private.make_trigger_functions(source);
  END IF;
  RETURN searchapp_private.make_triggers(source);
END $$;

COMMENT ON FUNCTION searchapp_private.ensure_triggers(searchapp_data.sources) IS
'Makes what a source lacks of its triggers and their functions; how many triggers these were. A polled one has none.';

CREATE FUNCTION searchapp_private.drop_triggers(source searchapp_data.sources) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- with the functions the triggers go, wherever they are by now; dropping these one by one takes the table's owner
  EXECUTE format('DROP FUNCTION IF EXISTS searchapp_private.source_%1$s_row(), '
    'searchapp_private.source_%1$s_statement() CASCADE', source.id);
END $$;

COMMENT ON FUNCTION searchapp_private.drop_triggers(searchapp_data.sources) IS
'Drops the triggers of a source and their functions.';
