-- The roles, which belong to the whole cluster: made where they are absent, and the migrating role becomes a member of
-- the owner. What it may not do stays undone; rights.sql says what an administrator must run. Nothing drops them.
DO $$
DECLARE
  wanted text;
  each record;
  search_path text := current_setting('search_path');
  lock_timeout text := current_setting('lock_timeout');
BEGIN
  IF to_regnamespace('searchapp_private') IS NULL THEN
    RETURN;  -- downgraded
  END IF;
  PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
  -- of databases that are migrated at the same moment one makes the roles, and the others wait until it has committed
  PERFORM set_config('lock_timeout', '60s', true);
  FOREACH wanted IN ARRAY ARRAY['searchapp_reader', 'searchapp_writer', 'searchapp_owner'] LOOP
    IF to_regrole(wanted) IS NULL THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
      EXCEPTION WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN
        NULL;
      END;
    END IF;
  END LOOP;
  FOR each IN
    SELECT g.rolname AS granted, m.rolname AS member
    FROM (VALUES ('searchapp_reader', 'searchapp_writer'), ('searchapp_owner', current_user)) v (granted, member)
    JOIN pg_roles g ON g.rolname = v.granted
    JOIN pg_roles m ON m.rolname = v.member
    WHERE g.oid <> m.oid AND NOT EXISTS (
      SELECT FROM pg_auth_members a
      WHERE a.roleid = g.oid AND a.member = m.oid AND a.inherit_option AND a.set_option
    )
    ORDER BY g.rolname DESC
  LOOP
    BEGIN
      EXECUTE format('GRANT %I TO %I WITH INHERIT TRUE, SET TRUE', each.granted, each.member);
    EXCEPTION WHEN insufficient_privilege OR unique_violation OR invalid_grant_operation THEN
      NULL;
    END;
  END LOOP;
  PERFORM set_config('search_path', search_path, true);
  PERFORM set_config('lock_timeout', lock_timeout, true);
END $$;
