//! What a server is asked for.

/// Slots of standbys count, too. What is in use may be our own of a moment ago.
pub(super) const SERVER: &str = "
    SELECT current_user::text, current_setting('server_version_num')::int4, current_setting('wal_level'),
           current_setting('max_replication_slots')::int8 - (SELECT count(*) FROM pg_replication_slots),
           current_setting('max_wal_senders')::int8
               - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'),
           rolsuper OR rolreplication
    FROM pg_roles WHERE rolname = current_user";

/// `$1`: a publication.
pub(super) const PUBLICATION: &str = "
    SELECT puballtables, pubinsert AND pubupdate AND pubdelete AND pubtruncate,
           EXISTS (SELECT FROM pg_publication_tables t WHERE t.pubname = p.pubname)
    FROM pg_publication p WHERE pubname = $1";

/// `$1`: a publication.
pub(super) const WITHOUT_IDENTITY: &str = "
    SELECT format('%I.%I', n.nspname, c.relname)
    FROM pg_publication p
    JOIN pg_publication_tables t ON t.pubname = p.pubname
    JOIN pg_namespace n ON n.nspname = t.schemaname
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
    WHERE p.pubname = $1 AND (p.pubupdate OR p.pubdelete) AND c.relkind = 'r'
      AND (c.relreplident = 'n' OR c.relreplident = 'd' AND NOT EXISTS (
               SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary))
    ORDER BY 1";

/// `$1`: a publication; `$2`: the stream carries messages. Tables of users that neither it nor triggers tell of; what
/// belongs to a partitioned table goes with it.
pub(super) const UNHEARD: &str = "
    SELECT format('%I.%I', n.nspname, c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.oid >= 16384 AND NOT c.relispartition
      AND n.nspname !~ '^(pg_|information_schema$)'
      AND NOT EXISTS (
          SELECT FROM pg_publication_tables t JOIN pg_publication p ON p.pubname = t.pubname
          WHERE p.pubname = $1 AND t.schemaname = n.nspname AND t.tablename = c.relname
            AND to_jsonb(t) ->> 'rowfilter' IS NULL AND pubinsert AND pubupdate AND pubdelete AND pubtruncate)
      AND NOT ($2 AND EXISTS (
          SELECT FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid
          WHERE t.tgrelid = c.oid AND f.proname = 'pgweir_invalidate' AND t.tgenabled = 'A'))
    ORDER BY 1";
