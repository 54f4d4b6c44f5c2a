-- Who owns what, and who may do what: run at the end of every upgrade, over all that is there, so that a migration need
-- grant nothing and what earlier versions made is taken over.
--
-- searchapp          what analysts see: a reader selects from its views and executes its functions
-- searchapp_data     the tables: a reader selects from them and executes functions that have its own rights, a writer
--                    writes to the tables and executes those that have the owner's (SECURITY DEFINER)
-- searchapp_private  for the owner alone. Nobody else has USAGE there, and so nobody can call what an extension that
--                    stands there lets everybody execute. A function that has the rights of who calls it finds nothing
--                    here: what it calls stands in one of the other two.
--
-- Which users' tables are kept in step, and what of them has changed, the owner alone says: workers read these tables.
-- Of partitions only the upkeep is a writer's: their rows are reached by the parent, whose policies hold there. Which
-- collections and spaces there are, and what they are called, only functions of the owner change: others that have the
-- owner's rights rely on it.

-- The owner.
DO $$
DECLARE
  owners oid;
  lacking text;
  tables text;
  lock_timeout text := current_setting('lock_timeout');
  refused text[] := '{}';
  each record;
BEGIN
  IF to_regnamespace('searchapp_private') IS NULL THEN
    RETURN;  -- downgraded
  END IF;
  PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
  owners := to_regrole('searchapp_owner');
  SELECT string_agg(s.statement, '; ' ORDER BY s.place) INTO lacking FROM (
    SELECT r.place, 'CREATE ROLE ' || r.name AS statement
    FROM (VALUES (1, 'searchapp_reader'), (2, 'searchapp_writer'), (3, 'searchapp_owner')) r (place, name)
    WHERE to_regrole(r.name) IS NULL
    UNION ALL
    SELECT 4, 'GRANT searchapp_reader TO searchapp_writer'
    WHERE NOT EXISTS (
      SELECT FROM pg_auth_members
      WHERE roleid = to_regrole('searchapp_reader') AND member = to_regrole('searchapp_writer')
    )
    UNION ALL
    SELECT 5, format('GRANT searchapp_owner TO %I WITH INHERIT TRUE, SET TRUE', current_user)
    WHERE NOT coalesce(pg_has_role(owners, 'SET') AND pg_has_role(owners, 'USAGE'), false)
  ) s;
  IF lacking IS NOT NULL THEN
    RAISE WARNING 'role % may not set up the roles of searchapp; ask an administrator to run: %; and then run again: '
      'searchapp db upgrade', current_user, lacking;
  END IF;
  IF NOT coalesce(pg_has_role(owners, 'SET') AND pg_has_role(owners, 'USAGE'), false) THEN
    RETURN;
  END IF;
  FOR each IN
    SELECT nspname FROM pg_namespace
    WHERE nspname IN ('searchapp', 'searchapp_data', 'searchapp_private') AND nspowner <> owners
    ORDER BY nspname
  LOOP
    BEGIN
      EXECUTE format('ALTER SCHEMA %I OWNER TO searchapp_owner', each.nspname);
    EXCEPTION WHEN insufficient_privilege THEN
      -- who may not create schemas cannot give one away; that its objects may belong to the owner is enough
      EXECUTE format('GRANT CREATE, USAGE ON SCHEMA %I TO searchapp_owner', each.nspname);
    END;
  END LOOP;
  -- Searches lock the same tables in another order. All at once or none, and giving way before anybody looks for a
  -- deadlock, which would end one of both.
  SELECT string_agg(format('ONLY %s', c.oid::regclass), ', ' ORDER BY c.oid) INTO tables
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname IN ('searchapp', 'searchapp_data', 'searchapp_private') AND c.relkind IN ('r', 'p')
    AND c.relowner <> owners AND pg_has_role(c.relowner, 'USAGE');
  PERFORM set_config('lock_timeout', '300ms', true);
  FOR attempt IN 1..20 LOOP
    EXIT WHEN tables IS NULL;
    BEGIN
      EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', tables);
      EXIT;
    EXCEPTION WHEN lock_not_available THEN
      IF attempt = 20 THEN
        RAISE;
      END IF;
    END;
    PERFORM pg_sleep(0.1);
  END LOOP;
  PERFORM set_config('lock_timeout', lock_timeout, true);
  FOR each IN
    WITH ours AS (
      SELECT oid FROM pg_namespace WHERE nspname IN ('searchapp', 'searchapp_data', 'searchapp_private')
    ),
    owned AS (
      SELECT 'pg_class'::regclass AS class, c.oid, c.relowner AS owner, format('TABLE %s', c.oid::regclass) AS object
      FROM pg_class c JOIN ours ON ours.oid = c.relnamespace
      WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') OR c.relkind = 'S' AND NOT EXISTS (
        -- that of a column is its table's
        SELECT FROM pg_depend d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
      )
      UNION ALL
      SELECT 'pg_proc'::regclass, p.oid, p.proowner, format('ROUTINE %s', p.oid::regprocedure)
      FROM pg_proc p JOIN ours ON ours.oid = p.pronamespace
      UNION ALL
      SELECT 'pg_type'::regclass, t.oid, t.typowner, format('TYPE %s', t.oid::regtype)
      FROM pg_type t JOIN ours ON ours.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
      WHERE t.typtype IN ('d', 'e', 'r') OR c.relkind = 'c'
      UNION ALL
      SELECT 'pg_foreign_server'::regclass, s.oid, s.srvowner, format('SERVER %I', s.srvname)
      FROM pg_foreign_server s WHERE s.srvname = 'searchapp_self'
    )
    SELECT format('ALTER %s OWNER TO searchapp_owner', o.object) AS statement FROM owned o
    WHERE o.owner <> owners AND NOT EXISTS (
      SELECT FROM pg_depend d WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e'
    )
    ORDER BY o.class, o.oid
  LOOP
    BEGIN
      EXECUTE each.statement;
    EXCEPTION WHEN insufficient_privilege THEN
      refused := refused || each.statement;
    END;
  END LOOP;
  IF refused <> '{}' THEN
    RAISE WARNING 'role % may not give all to searchapp_owner; ask an administrator to run: %', current_user,
      array_to_string(refused, '; ');
  END IF;
END $$;

-- Rights.
DO $$
DECLARE
  maintain text := CASE WHEN current_setting('server_version_num')::int >= 170000 THEN 'MAINTAIN' END;
  each record;
BEGIN
  IF to_regnamespace('searchapp_private') IS NULL THEN
    RETURN;
  END IF;
  PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
  FOR each IN
    SELECT p.oid::regprocedure AS routine
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname IN ('searchapp', 'searchapp_data', 'searchapp_private') AND pg_has_role(p.proowner, 'USAGE')
      AND EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0)
      AND NOT EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
      )
    ORDER BY p.oid
  LOOP
    EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', each.routine);
  END LOOP;
  IF to_regrole('searchapp_reader') IS NULL OR to_regrole('searchapp_writer') IS NULL THEN
    RETURN;
  END IF;
  FOR each IN
    SELECT n.nspname, r.role, has_schema_privilege(n.oid, 'USAGE WITH GRANT OPTION') AS may
    FROM pg_namespace n
    CROSS JOIN (VALUES ('searchapp_reader'), ('searchapp_owner')) r (role)
    WHERE (n.nspname IN ('searchapp', 'searchapp_data') OR n.oid = (
        SELECT e.extnamespace FROM pg_extension e WHERE e.extname = 'vector'
      )) AND to_regrole(r.role) IS NOT NULL AND NOT has_schema_privilege(r.role, n.oid, 'USAGE')
    ORDER BY n.nspname, r.role DESC
  LOOP
    IF each.may THEN
      EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', each.nspname, each.role);
    ELSE
      RAISE WARNING 'role % may not let others use the schema %; ask an administrator to run: '
        'GRANT USAGE ON SCHEMA % TO %', current_user, each.nspname, quote_ident(each.nspname), each.role;
    END IF;
  END LOOP;
  FOR each IN
    SELECT format('GRANT %s ON TABLE %s TO %I', w.privilege, c.oid::regclass, w.role) AS statement
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN (VALUES
      (1, 'searchapp_reader', 'SELECT'),
      (2, 'searchapp_writer', 'INSERT'),
      (3, 'searchapp_writer', 'UPDATE'),
      (4, 'searchapp_writer', 'DELETE'),
      (5, 'searchapp_writer', maintain)
    ) w (place, role, privilege)
    WHERE n.nspname IN ('searchapp', 'searchapp_data') AND c.relkind IN ('r', 'p', 'v', 'm')
      AND pg_has_role(c.relowner, 'USAGE')
      AND CASE
        WHEN w.privilege = 'SELECT' THEN NOT c.relispartition
        WHEN n.nspname = 'searchapp' OR c.relkind NOT IN ('r', 'p') THEN false
        WHEN w.privilege = 'MAINTAIN' THEN c.relname <> 'alembic_version'
        WHEN c.relname = 'models' THEN w.privilege = 'INSERT'
        ELSE NOT c.relispartition AND c.relname NOT IN (
          'alembic_version', 'collections', 'spaces', 'sources', 'source_rows', 'changes', 'failures')
      END
      AND NOT has_table_privilege(w.role, c.oid, w.privilege)
    ORDER BY c.oid, w.place
  LOOP
    EXECUTE each.statement;
  END LOOP;
  FOR each IN
    SELECT format('GRANT UPDATE (%I) ON TABLE %s TO searchapp_writer', a.attname, c.oid::regclass) AS statement
    FROM (VALUES
      ('collections', '{state,active_space,backfilled_until,documents,mean_length}'::name[]),
      ('spaces', '{state,ef_search,recall,measured_at,chunks,chunks_per_document}')
    ) w (relname, columns)
    JOIN pg_class c ON c.relname = w.relname AND c.relnamespace = to_regnamespace('searchapp_data')
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = ANY(w.columns)
    WHERE pg_has_role(c.relowner, 'USAGE') AND NOT has_column_privilege('searchapp_writer', c.oid, a.attnum, 'UPDATE')
    ORDER BY c.oid, a.attnum
  LOOP
    EXECUTE each.statement;
  END LOOP;
  FOR each IN
    SELECT format('GRANT EXECUTE ON ROUTINE %s TO %I', p.oid::regprocedure, w.role) AS statement
    FROM pg_proc p
    JOIN pg_namespace n ON n.oid = p.pronamespace
    CROSS JOIN LATERAL (
      SELECT CASE WHEN n.nspname = 'searchapp_data' AND p.prosecdef THEN 'searchapp_writer' ELSE 'searchapp_reader' END
    ) w (role)
    WHERE n.nspname IN ('searchapp', 'searchapp_data') AND pg_has_role(p.proowner, 'USAGE')
      AND NOT has_function_privilege(w.role, p.oid, 'EXECUTE')
    ORDER BY p.oid
  LOOP
    EXECUTE each.statement;
  END LOOP;
END $$;
