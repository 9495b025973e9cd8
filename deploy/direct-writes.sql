-- Tells pgweir of writes that bypass it, without replica identities and without the contents of rows in the stream: for
-- PostgreSQL 14 and later, with `[cache] wal_invalidation = 1` and an empty publication.
--
--   psql -f direct-writes.sql DATABASE              as a superuser: event triggers ask for one
--   SELECT pgweir.watch('public.orders');           for each table whose reads shall be cached
--
-- A table counts once it has the trigger, and so have all tables that it is a partition or a child of. Triggers are made
-- ENABLE ALWAYS: session_replication_role cannot switch them off. What a subscription of logical replication applies
-- fires no such trigger: tables of a subscription have to be published instead.

BEGIN;

CREATE SCHEMA IF NOT EXISTS pgweir;
GRANT USAGE ON SCHEMA pgweir TO PUBLIC;

DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'pgweir') THEN
        CREATE PUBLICATION pgweir;
    END IF;
END $$;

-- A statement has written to this table, or to those that belong to it.
CREATE OR REPLACE FUNCTION pgweir.pgweir_invalidate() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_logical_emit_message(true, 'pgweir', TG_RELID::text);
    RETURN NULL;
END $$;

-- The table, and all that belong to it, tell of their writes from now on. A partition that is added later has to be
-- watched as well.
CREATE OR REPLACE FUNCTION pgweir.watch(watched regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    member regclass;
BEGIN
    FOR member IN
        WITH RECURSIVE family(oid) AS (
            SELECT watched::oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN family f ON i.inhparent = f.oid)
        SELECT c.oid FROM family JOIN pg_class c USING (oid) WHERE c.relkind IN ('r', 'p')
    LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS pgweir_changed ON %s', member);
        EXECUTE format('DROP TRIGGER IF EXISTS pgweir_truncated ON %s', member);
        EXECUTE format('CREATE TRIGGER pgweir_changed AFTER INSERT OR UPDATE OR DELETE ON %s '
                       'FOR EACH STATEMENT EXECUTE FUNCTION pgweir.pgweir_invalidate()', member);
        EXECUTE format('CREATE TRIGGER pgweir_truncated AFTER TRUNCATE ON %s '
                       'FOR EACH STATEMENT EXECUTE FUNCTION pgweir.pgweir_invalidate()', member);
        EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER pgweir_changed', member);
        EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER pgweir_truncated', member);
    END LOOP;
END $$;

-- A definition has changed; temporary objects are nobody else's. Of a materialised view that is refreshed only the
-- contents change.
CREATE OR REPLACE FUNCTION pgweir.pgweir_definitions() RETURNS event_trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    command record;
BEGIN
    IF TG_EVENT = 'sql_drop' THEN
        IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() WHERE NOT is_temporary) THEN
            PERFORM pg_logical_emit_message(true, 'pgweir', 'ddl');
        END IF;
        RETURN;
    END IF;
    FOR command IN SELECT * FROM pg_event_trigger_ddl_commands() LOOP
        IF TG_TAG = 'REFRESH MATERIALIZED VIEW' THEN
            PERFORM pg_logical_emit_message(true, 'pgweir', command.objid::text);
        ELSIF command.schema_name IS DISTINCT FROM 'pg_temp' THEN
            PERFORM pg_logical_emit_message(true, 'pgweir', 'ddl');
            RETURN;
        END IF;
    END LOOP;
END $$;

DROP EVENT TRIGGER IF EXISTS pgweir_changed;
CREATE EVENT TRIGGER pgweir_changed ON ddl_command_end EXECUTE FUNCTION pgweir.pgweir_definitions();
ALTER EVENT TRIGGER pgweir_changed ENABLE ALWAYS;
DROP EVENT TRIGGER IF EXISTS pgweir_dropped;
CREATE EVENT TRIGGER pgweir_dropped ON sql_drop EXECUTE FUNCTION pgweir.pgweir_definitions();
ALTER EVENT TRIGGER pgweir_dropped ENABLE ALWAYS;

COMMIT;
