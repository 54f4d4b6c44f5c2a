-- The link: by it embed() opens a second, short session on this database, which asks and waits for the answer. It is a
-- foreign server and a user mapping of the owner's, with the password of a role of this database that may only ask:
-- searchapp db embed-link makes them. dblink stands where no reader comes: it would let them connect to anywhere, and it
-- prefers a connection that somebody has opened under the server's name.

DO $$
DECLARE
  place text;
BEGIN
  SELECT n.nspname INTO place FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
  WHERE e.extname = 'dblink';
  IF place IS NULL THEN
    CREATE EXTENSION dblink SCHEMA searchapp_private;
    REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA searchapp_private FROM PUBLIC;
  ELSIF place <> 'searchapp_private' THEN
    RAISE feature_not_supported USING MESSAGE = format('it stands in the schema %I', place);
  END IF;
EXCEPTION WHEN insufficient_privilege OR feature_not_supported OR undefined_file THEN
  RAISE WARNING 'the migration goes on without the extension dblink (%), so searchapp.embed() can ask no worker; what to '
    'do says: searchapp db embed-link', SQLERRM;
END $$;

CREATE FUNCTION searchapp_private.link_problem() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  options text[];
BEGIN
  IF to_regprocedure('searchapp_private.dblink(text, text)') IS NULL THEN
    RETURN 'the extension dblink is not in the schema searchapp_private';
  END IF;
  SELECT s.srvoptions || m.umoptions INTO options
  FROM pg_foreign_server s JOIN pg_user_mappings m ON m.srvid = s.oid
  WHERE s.srvname = 'searchapp_self' AND m.usename = current_user;
  IF options IS NULL THEN
    RETURN 'embed() has no link to ask a worker by';
  ELSIF NOT options @> ARRAY[
    'dbname=' || current_database(),
    'user=searchapp_asker_' || (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())]
  THEN
    RETURN 'this database is a copy, whose link leads to another one';
  END IF;
  RETURN NULL;
END $$;

COMMENT ON FUNCTION searchapp_private.link_problem() IS
'What embed() lacks to ask a worker; null: nothing that can be seen without asking.';

CREATE FUNCTION searchapp_private.try_link() RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  problem CONSTANT text := searchapp_private.link_problem();
  statement CONSTANT text := 'SELECT pg_catalog.concat(pg_catalog.current_database(), '' since '',
    pg_catalog.date_part(''epoch'', pg_catalog.pg_postmaster_start_time()))';
  here text;
  there text;
BEGIN
  IF problem IS NOT NULL THEN
    RETURN problem;
  END IF;
  EXECUTE statement INTO here;
  SELECT t.answer INTO there FROM searchapp_private.dblink('searchapp_self', statement) AS t (answer text);
  RETURN CASE WHEN there <> here THEN 'the address is another server''s' END;
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS there = PG_EXCEPTION_DETAIL;
  RETURN coalesce(nullif(there, ''), SQLERRM);
END $$;

COMMENT ON FUNCTION searchapp_private.try_link() IS
'Opens the second session once; what is in its way, null where it can be had and is one of this database.';
