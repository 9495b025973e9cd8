//! The catalog queries. `16384` is PostgreSQL's first oid for objects of users.

pub(super) const DATABASE: &str = "
    SELECT d.oid, pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
           pg_catalog.current_setting('server_encoding') OPERATOR(pg_catalog.=) 'UTF8'
    FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()";

/// `$1`: a setting. What the catalog says of it goes before what this connection began with, perhaps long ago. NULL if
/// this connection has a value of its own and the catalog has none.
pub(super) const DEFAULT_OF_SETTING: &str = "
    SELECT coalesce(
        (SELECT pg_catalog.substr(c, pg_catalog.length($1) + 2)
         FROM pg_catalog.pg_db_role_setting r
         LEFT JOIN pg_catalog.pg_database d ON d.oid = r.setdatabase
         CROSS JOIN LATERAL pg_catalog.unnest(r.setconfig) AS c
         WHERE (r.setdatabase = 0 OR d.datname = pg_catalog.current_database()) AND r.setrole = 0
           AND pg_catalog.starts_with(c, $1 || '=')
         ORDER BY r.setdatabase DESC LIMIT 1),
        CASE WHEN s.source IN ('default', 'environment variable', 'configuration file', 'command line')
             THEN s.reset_val END)
    FROM pg_catalog.pg_settings s WHERE s.name = $1";

/// `$1`: a setting. One for the role in this database goes before one for the role everywhere.
pub(super) const ROLES_WITH_SETTING: &str = "
    SELECT DISTINCT ON (a.rolname) a.rolname::text, pg_catalog.substr(c, pg_catalog.length($1) + 2)
    FROM pg_catalog.pg_db_role_setting r
    JOIN pg_catalog.pg_roles a ON a.oid = r.setrole
    LEFT JOIN pg_catalog.pg_database d ON d.oid = r.setdatabase
    CROSS JOIN LATERAL pg_catalog.unnest(r.setconfig) AS c
    WHERE (r.setdatabase = 0 OR d.datname = pg_catalog.current_database())
      AND pg_catalog.starts_with(c, $1 || '=')
    ORDER BY a.rolname, r.setdatabase DESC";

pub(super) const PECULIAR_ROLES: &str = "
    SELECT a.rolname::text
    FROM pg_catalog.pg_roles a
    WHERE a.rolcanlogin AND (a.rolsuper OR EXISTS (
        SELECT FROM pg_catalog.pg_db_role_setting r LEFT JOIN pg_catalog.pg_database d ON d.oid = r.setdatabase
        WHERE r.setrole = a.oid AND (r.setdatabase = 0 OR d.datname = pg_catalog.current_database())))";

/// All settings that new sessions of this database begin with, as a number.
pub(super) const SETTINGS: &str = "
    SELECT coalesce(pg_catalog.sum(pg_catalog.hashtextextended(
               pg_catalog.concat_ws(',', r.setdatabase, r.setrole, r.setconfig), 0)), 0)::text
    FROM pg_catalog.pg_db_role_setting r LEFT JOIN pg_catalog.pg_database d ON d.oid = r.setdatabase
    WHERE r.setdatabase = 0 OR d.datname = pg_catalog.current_database()";

/// Roles that do not run as themselves from the start; NULL: nobody does.
pub(super) const DISGUISED_ROLES: &str = "
    SELECT a.rolname::text
    FROM pg_catalog.pg_db_role_setting r
    LEFT JOIN pg_catalog.pg_roles a ON a.oid = r.setrole
    LEFT JOIN pg_catalog.pg_database d ON d.oid = r.setdatabase
    CROSS JOIN LATERAL pg_catalog.unnest(r.setconfig) AS c
    WHERE (r.setdatabase = 0 OR d.datname = pg_catalog.current_database()) AND pg_catalog.starts_with(c, 'role=')";

/// Without a list of rights a schema is its owner's.
pub(super) const SCHEMAS: &str = "
    SELECT oid, nspname::text, ARRAY(
        SELECT grantee FROM aclexplode(COALESCE(nspacl, acldefault('n', nspowner))) WHERE privilege_type = 'USAGE')
    FROM pg_namespace WHERE nspname !~ '^pg_(toast|temp_)'";

pub(super) const ROLES: &str = "SELECT oid, rolname::text, rolsuper FROM pg_roles";

pub(super) const BYPASSING_ROLES: &str = "SELECT oid FROM pg_roles WHERE rolbypassrls";

pub(super) const POLICY_ROLES: &str = "SELECT DISTINCT unnest(polroles) FROM pg_policy";

/// Memberships that give rights without SET ROLE: since PostgreSQL 16 each says so, before that the member does. Whoever
/// owns the database is a member of `pg_database_owner`, which came with PostgreSQL 14.
pub(super) const MEMBERSHIPS: &str = "
    SELECT m.member, m.roleid FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member
    WHERE COALESCE((to_jsonb(m) ->> 'inherit_option')::bool, r.rolinherit)
    UNION
    SELECT d.datdba, o.oid FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba, pg_roles o
    WHERE d.datname = current_database() AND o.rolname = 'pg_database_owner'
      AND (r.rolinherit OR current_setting('server_version_num')::int4 >= 160000)";

/// Roles with any setting of their own.
pub(super) const ROLES_WITH_SETTINGS: &str = "
    SELECT DISTINCT a.rolname::text
    FROM pg_db_role_setting r
    JOIN pg_roles a ON a.oid = r.setrole
    LEFT JOIN pg_database d ON d.oid = r.setdatabase
    WHERE r.setdatabase = 0 OR d.datname = current_database()";

/// Without a list of rights a table is its owner's; an owner may lack them as well.
pub(super) const READERS: &str = "
    SELECT oid, ARRAY(
        SELECT grantee FROM aclexplode(COALESCE(relacl, acldefault('r', relowner))) WHERE privilege_type = 'SELECT')
    FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm') AND relpersistence <> 't'";

/// Functions that PUBLIC may not call. Of those of the server, `pg_init_privs` lists what nobody else might ever call: none
/// of them is behind an operator or a cast.
pub(super) const RESTRICTED: &str = "
    SELECT p.oid, ARRAY(SELECT grantee FROM aclexplode(p.proacl) WHERE privilege_type = 'EXECUTE'),
           CASE WHEN p.oid < 16384 THEN NOT EXISTS (
                    SELECT FROM pg_init_privs i
                    WHERE i.objoid = p.oid AND i.classoid = 'pg_catalog.pg_proc'::regclass AND i.objsubid = 0)
                ELSE EXISTS (SELECT FROM pg_operator o WHERE o.oprcode::oid = p.oid)
                  OR EXISTS (SELECT FROM pg_cast c WHERE c.castfunc = p.oid)
                  OR EXISTS (SELECT FROM pg_amproc a WHERE a.amproc::oid = p.oid)
           END
    FROM pg_proc p
    WHERE p.proacl IS NOT NULL
      AND NOT EXISTS (SELECT FROM aclexplode(p.proacl) WHERE grantee = 0 AND privilege_type = 'EXECUTE')";

/// A text search configuration or a dictionary may be named in a string, and a collation is named in passing; schemas that
/// are named with them must be one's to use.
pub(super) const NAMED_IN_LITERALS: &str = "
    SELECT cfgnamespace FROM pg_ts_config UNION SELECT dictnamespace FROM pg_ts_dict
    UNION SELECT prsnamespace FROM pg_ts_parser UNION SELECT tmplnamespace FROM pg_ts_template
    UNION SELECT collnamespace FROM pg_collation";

/// Labels are read by extensions that mask what some roles see; triggers of logins came with PostgreSQL 17.
pub(super) const TELLS_ROLES_APART: &str = "
    SELECT EXISTS (SELECT FROM pg_seclabel) OR EXISTS (SELECT FROM pg_shseclabel)
        OR EXISTS (SELECT FROM pg_event_trigger WHERE evtevent = 'login' AND evtenabled <> 'D')";

/// A column is unstable if its type is, or is made of such a type: `timetz`, `reg*`, `aclitem`, and base
/// types of users whose input or output is not immutable. (Binary forms hang on the client's encoding only.)
pub(super) const RELATIONS: &str = "
    WITH RECURSIVE made_of(part, whole) AS (
        SELECT typbasetype, oid FROM pg_type WHERE typbasetype <> 0
        UNION ALL SELECT typelem, oid FROM pg_type WHERE typelem <> 0
        UNION ALL SELECT rngsubtype, rngtypid FROM pg_range
        UNION ALL SELECT a.atttypid, c.reltype FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
                  WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind = 'c'
    ), unstable(oid) AS (
        SELECT t.oid FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
        WHERE n.nspname = 'pg_catalog'
          AND t.typname = ANY ('{timetz,aclitem,regclass,regcollation,regdatabase,regnamespace,regoper,regoperator,
                                 regproc,regprocedure,regrole,regtype}')
        UNION
        SELECT t.oid FROM pg_type t JOIN pg_proc p ON p.oid IN (t.typinput, t.typoutput)
        WHERE t.oid >= 16384 AND t.typtype = 'b' AND t.typcategory <> 'A' AND p.provolatile <> 'i'
        UNION
        SELECT m.whole FROM unstable u JOIN made_of m ON m.part = u.oid
    ), columns AS (
        SELECT a.attrelid, bool_or(a.attgenerated <> '') AS generated,
               bool_or(a.atttypid IN (SELECT oid FROM unstable)) AS unstable
        FROM pg_attribute a WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid >= 16384
        GROUP BY a.attrelid
    )
    SELECT c.oid, c.relname::text, c.relnamespace, c.relkind::text, c.relpersistence::text, c.relrowsecurity,
           COALESCE(columns.generated, false), COALESCE(columns.unstable, false), c.reltype,
           c.relkind = 'v' AND EXISTS (
               SELECT FROM pg_options_to_table(c.reloptions)
               WHERE CASE WHEN option_name = 'security_invoker' THEN option_value::bool ELSE false END)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN columns ON columns.attrelid = c.oid
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_(toast|temp_)'";

pub(super) const PLUMBING: &str = "
    SELECT oid FROM pg_class WHERE oid >= 16384 AND relkind IN ('i', 'I', 't')";

pub(super) const RULES: &str = "
    SELECT ev_class, ev_type::text, ev_action::text FROM pg_rewrite WHERE ev_class >= 16384 AND ev_enabled <> 'D'";

pub(super) const INHERITANCE: &str = "SELECT inhrelid, inhparent FROM pg_inherits";

/// Primary keys of one column of type int8, int2, int4, text, varchar or uuid. Collations that take different texts for
/// equal are left out, and types that operators of users compare; those of varchar are found by what fits best, so any may be.
pub(super) const KEYS: &str = "
    SELECT i.indrelid, a.attname::text, a.atttypid
    FROM pg_index i
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    LEFT JOIN pg_collation c ON c.oid = a.attcollation
    WHERE i.indrelid >= 16384 AND i.indisprimary AND i.indnkeyatts = 1
      AND a.atttypid IN (20, 21, 23, 25, 1043, 2950) AND a.attgenerated = ''
      AND (a.attcollation = 0 OR c.collisdeterministic)
      AND NOT EXISTS (
          SELECT FROM pg_operator o
          WHERE o.oid >= 16384 AND o.oprname = '='
            AND CASE WHEN a.atttypid = 1043 THEN true
                     WHEN a.atttypid IN (20, 21, 23) THEN o.oprleft IN (20, 21, 23) OR o.oprright IN (20, 21, 23)
                     ELSE a.atttypid IN (o.oprleft, o.oprright) END)";

pub(super) const FOREIGN_KEYS: &str = "
    SELECT conrelid, confrelid, confdeltype::text, confupdtype::text,
           ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = confrelid AND a.attnum = ANY (confkey))
    FROM pg_constraint WHERE contype = 'f'";

/// Until PostgreSQL 14 the copies of a trigger on partitions count as internal.
pub(super) const TRIGGERS: &str = "
    SELECT tgrelid, tgfoid, tgdeferrable FROM pg_trigger
    WHERE tgenabled <> 'D' AND (NOT tgisinternal OR tgfoid >= 16384)";

pub(super) const EXPRESSIONS: &str = "
    WITH RECURSIVE chain(type, domain) AS (
        SELECT oid, oid FROM pg_type WHERE typtype = 'd' AND oid >= 16384
        UNION
        SELECT t.oid, chain.domain FROM pg_type t JOIN chain ON chain.type IN (t.typbasetype, t.typelem)
    )
    SELECT adrelid, false, adbin::text FROM pg_attrdef WHERE adrelid >= 16384
    UNION ALL
    SELECT DISTINCT attrelid, false, '{NEXTVALUEEXPR}' FROM pg_attribute WHERE attrelid >= 16384 AND attidentity <> ''
    UNION ALL
    SELECT conrelid, false, conbin::text FROM pg_constraint WHERE conrelid >= 16384 AND conbin IS NOT NULL
    UNION ALL
    SELECT indrelid, false, concat(indexprs::text, ' ', indpred::text) FROM pg_index
    WHERE indrelid >= 16384 AND (indexprs IS NOT NULL OR indpred IS NOT NULL)
    UNION ALL
    SELECT partrelid, false, partexprs::text FROM pg_partitioned_table WHERE partexprs IS NOT NULL
    UNION ALL
    SELECT DISTINCT a.attrelid, false, c.conbin::text
    FROM chain
    JOIN pg_constraint c ON c.contypid = chain.domain AND c.conbin IS NOT NULL
    JOIN pg_attribute a ON a.atttypid = chain.type AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT polrelid, true, concat(polqual::text, ' ', polwithcheck::text) FROM pg_policy";

pub(super) const OPERATORS: &str = "
    SELECT oprname::text, oprnamespace, oprcode::oid, ARRAY[oprleft, oprright]
    FROM pg_operator WHERE oprcode::oid >= 16384";

/// Of operator classes, what compares and hashes: the rest is written in C, or asked by no query.
pub(super) const UNSEEN: &str = "
    SELECT castfunc, ARRAY[castsource, casttarget] FROM pg_cast WHERE castfunc >= 16384
    UNION ALL
    SELECT o.oprcode::oid, ARRAY[a.amoplefttype, a.amoprighttype]
    FROM pg_amop a JOIN pg_am m ON m.oid = a.amopmethod JOIN pg_operator o ON o.oid = a.amopopr
    WHERE o.oprcode::oid >= 16384 AND m.amname IN ('btree', 'hash')
    UNION ALL
    SELECT p.amproc::oid, ARRAY[p.amproclefttype, p.amprocrighttype]
    FROM pg_amproc p JOIN pg_opfamily f ON f.oid = p.amprocfamily JOIN pg_am m ON m.oid = f.opfmethod
    WHERE p.amproc::oid >= 16384
      AND (m.amname = 'btree' AND p.amprocnum IN (1, 3) OR m.amname = 'hash' AND p.amprocnum IN (1, 2))";

pub(super) const TYPES: &str = "
    WITH made_of(whole, part) AS (
        SELECT oid, typbasetype FROM pg_type
        UNION ALL SELECT oid, typelem FROM pg_type
        UNION ALL SELECT rngtypid, rngsubtype FROM pg_range
        UNION ALL SELECT (to_jsonb(r) ->> 'rngmultitypid')::oid, rngsubtype FROM pg_range r
        UNION ALL SELECT c.reltype, a.atttypid FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
                  WHERE a.attnum > 0 AND NOT a.attisdropped
    ), parts AS (
        SELECT whole, array_agg(DISTINCT part) AS of_users FROM made_of WHERE part >= 16384 GROUP BY whole
    )
    SELECT t.oid, t.typname::text, t.typnamespace, t.typtype::text,
           CASE WHEN t.oid < 16384 THEN '{}'::oid[]
                WHEN t.typtype = 'd' THEN ARRAY(
                    SELECT DISTINCT found[1]::oid FROM pg_constraint c,
                           regexp_matches(c.conbin::text, ':(?:funcid|opfuncid) ([0-9]+)', 'g') AS found
                    WHERE c.contypid = t.oid)
                ELSE ARRAY(
                    SELECT p FROM unnest(ARRAY[t.typinput::oid, t.typoutput::oid]) AS p
                    WHERE p >= 16384)
           END,
           t.typbasetype, COALESCE(parts.of_users, '{}'::oid[])
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN parts ON parts.whole = t.oid
    WHERE n.nspname !~ '^pg_(toast|temp_)'";

/// `prosqlbody` came with PostgreSQL 14. A function takes a row if it can be called with one argument of a
/// row type or of any type.
pub(super) fn functions(server_version_num: u32) -> String {
    let body = if server_version_num >= 140_000 { "p.prosqlbody::text" } else { "NULL::text" };
    format!(
        "SELECT p.oid, p.proname::text, p.pronamespace, p.provolatile::text, l.lanname::text, p.prokind::text,
                p.pronargs, p.pronargdefaults, p.provariadic <> 0,
                p.pronargs > 0 AND p.pronargs - p.pronargdefaults <= 1 AND EXISTS (
                    SELECT FROM pg_type t WHERE t.oid = p.proargtypes[0]
                      AND (t.typtype IN ('c', 'd') OR t.typname = ANY ('{{record,any,anyelement,anynonarray,
                                                       anycompatible,anycompatiblenonarray}}'))),
                {body},
                CASE WHEN p.oid >= 16384 THEN p.prosrc END,
                CASE WHEN p.oid >= 16384 AND p.prokind = 'a' THEN ARRAY(
                    SELECT f FROM pg_aggregate a, unnest(ARRAY[
                        a.aggtransfn::oid, a.aggfinalfn::oid, a.aggcombinefn::oid, a.aggserialfn::oid,
                        a.aggdeserialfn::oid, a.aggmtransfn::oid, a.aggminvtransfn::oid, a.aggmfinalfn::oid]) AS f
                    WHERE a.aggfnoid::oid = p.oid AND f <> 0)
                ELSE '{{}}'::oid[] END,
                CASE WHEN p.oid >= 16384 THEN ARRAY(
                    SELECT DISTINCT t FROM unnest(COALESCE(p.proallargtypes, p.proargtypes::oid[]) || p.prorettype) AS t
                    WHERE t >= 16384)
                ELSE '{{}}'::oid[] END,
                CASE WHEN p.oid >= 16384 THEN (
                    SELECT substr(c, 13) FROM unnest(p.proconfig) AS c WHERE starts_with(c, 'search_path=')) END,
                CASE WHEN p.oid >= 16384 THEN p.proargdefaults::text END
         FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang"
    )
}

/// Names with a dot that the text of a user's function may set.
pub(super) const CUSTOM_SETTINGS: &str = r"
    SELECT DISTINCT lower(found[1])::text FROM pg_proc p, regexp_matches(p.prosrc,
           '(?:set_config\s*\(\s*''+|\mset\s+(?:session\s+)?)([[:alpha:]_][\w$]*(?:\.[[:alpha:]_][\w$]*)+)', 'gi') AS found
    WHERE p.oid >= 16384 AND length(found[1]) < 128 ORDER BY 1 LIMIT 256";

/// Rows of most catalogs are told apart by `xmin`; those of `pg_class` by what matters, because TRUNCATE and
/// REFRESH write them as well. Temporary tables come and go without notice.
pub(super) const FINGERPRINT: &str = "
    WITH kept(oid) AS (
        SELECT oid FROM pg_class WHERE relpersistence <> 't' AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c')
    ), rows(catalog, sum) AS (
        SELECT 1, sum(hashtextextended(concat_ws(',', oid, relname, relnamespace, relkind, relpersistence, relowner,
                                       relrowsecurity, relforcerowsecurity, relnatts, relacl,
                                       CASE WHEN relkind = 'v' THEN reloptions END), 0))
        FROM pg_class WHERE oid IN (SELECT oid FROM kept)
        UNION ALL SELECT 2, sum(hashtextextended(concat_ws(',', attrelid, attnum, xmin), 0)) FROM pg_attribute
                  WHERE attrelid >= 16384 AND attnum > 0 AND attrelid IN (SELECT oid FROM kept)
        UNION ALL SELECT 3, sum(hashtextextended(concat_ws(',', oid, xmin), 0)) FROM pg_proc
                  WHERE oid >= 16384 OR proacl IS NOT NULL
        UNION ALL SELECT 4, sum(hashtextextended(concat_ws(',', oid, xmin), 0)) FROM pg_type
                  WHERE typtype IN ('d', 'e', 'r', 'm') OR typtype = 'b' AND typelem = 0
        UNION ALL SELECT 5, sum(hashtextextended(concat_ws(',', oid, xmin), 0)) FROM pg_rewrite
                  WHERE ev_class IN (SELECT oid FROM kept)
        UNION ALL SELECT 6, sum(hashtextextended(concat_ws(',', oid, xmin), 0)) FROM pg_trigger
                  WHERE tgrelid IN (SELECT oid FROM kept)
        UNION ALL SELECT 7, sum(hashtextextended(concat_ws(',', oid, xmin), 0)) FROM pg_constraint
                  WHERE conrelid = 0 OR conrelid IN (SELECT oid FROM kept)
        UNION ALL SELECT 8, sum(hashtextextended(concat_ws(',', oid, xmin), 0)) FROM pg_attrdef
                  WHERE adrelid IN (SELECT oid FROM kept)
        UNION ALL SELECT 9, sum(hashtextextended(concat_ws(',', inhrelid, inhparent), 0)) FROM pg_inherits
                  WHERE inhparent IN (SELECT oid FROM kept)
        UNION ALL SELECT 10, sum(hashtextextended(concat_ws(',', oid, xmin), 0)) FROM pg_policy
        UNION ALL SELECT 11, sum(hashtextextended(concat_ws(',', oid, xmin), 0)) FROM pg_operator WHERE oid >= 16384
        UNION ALL SELECT 12, sum(hashtextextended(concat_ws(',', oid, xmin), 0)) FROM pg_cast WHERE oid >= 16384
        UNION ALL SELECT 13, sum(hashtextextended(concat_ws(',', oid, xmin), 0)) FROM pg_namespace
                  WHERE nspname !~ '^pg_(toast|temp_)'
        UNION ALL SELECT 14, sum(hashtextextended(concat_ws(',', oid, xmin), 0)) FROM pg_enum
        UNION ALL SELECT 15, sum(hashtextextended(concat_ws(',', oid, xmin), 0)) FROM pg_ts_config
        UNION ALL SELECT 16, sum(hashtextextended(concat_ws(',', mapcfg, maptokentype, mapseqno, mapdict), 0))
                  FROM pg_ts_config_map
        UNION ALL SELECT 17, sum(hashtextextended(concat_ws(',', oid, xmin), 0)) FROM pg_ts_dict
        UNION ALL SELECT 18, sum(hashtextextended(concat_ws(',', roleid, member, admin_option,
                                                  to_jsonb(m) ->> 'inherit_option'), 0)) FROM pg_auth_members m
        UNION ALL SELECT 19, sum(hashtextextended(concat_ws(',', oid, rolname, rolsuper, rolinherit, rolbypassrls,
                                                  rolcanlogin), 0)) FROM pg_roles
        UNION ALL SELECT 20, sum(hashtextextended(concat_ws(',', setdatabase, setrole, setconfig), 0))
                  FROM pg_db_role_setting
                  WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
        UNION ALL SELECT 21, sum(hashtextextended(concat_ws(',', indrelid, indkey, indexprs, indpred), 0)) FROM pg_index
                  WHERE (indexprs IS NOT NULL OR indpred IS NOT NULL) AND indrelid IN (SELECT oid FROM kept)
        UNION ALL SELECT 22, sum(hashtextextended(concat_ws(',', name, reset_val), 0)) FROM pg_settings
                  WHERE context IN ('user', 'superuser') AND name <> 'application_name'
        UNION ALL SELECT 23, hashtextextended(pg_postmaster_start_time()::text, 0)
        UNION ALL SELECT 24, hashtextextended(datdba::text, 0) FROM pg_database WHERE datname = current_database()
        UNION ALL SELECT 25, sum(hashtextextended(concat_ws(',', objoid, classoid, objsubid, provider, label), 0))
                  FROM (SELECT * FROM pg_seclabel
                        UNION ALL SELECT objoid, classoid, 0, provider, label FROM pg_shseclabel) labels
        UNION ALL SELECT 26, sum(hashtextextended(concat_ws(',', oid, xmin), 0)) FROM pg_event_trigger
        UNION ALL SELECT 27, sum(hashtextextended(concat_ws(',', oid, xmin), 0)) FROM pg_collation WHERE oid >= 16384
        UNION ALL SELECT 28, sum(hashtextextended(concat_ws(',', oid, xmin), 0)) FROM pg_ts_parser
        UNION ALL SELECT 29, sum(hashtextextended(concat_ws(',', oid, xmin), 0)) FROM pg_ts_template
    )
    SELECT hashtextextended(string_agg(concat_ws(':', catalog, sum), ',' ORDER BY catalog), 0) FROM rows";

/// `$1`: a publication. `pubviaroot` came with PostgreSQL 13.
pub(super) const PUBLICATION: &str = "
    SELECT coalesce((pg_catalog.to_jsonb(p) ->> 'pubviaroot')::pg_catalog.bool, false),
           pubinsert AND pubupdate AND pubdelete AND pubtruncate
    FROM pg_catalog.pg_publication p WHERE pubname OPERATOR(pg_catalog.=) $1";

/// `$1`: a publication. Rows that a filter leaves out (PostgreSQL 15) change unheard.
pub(super) const PUBLISHED: &str = "
    SELECT c.oid
    FROM pg_catalog.pg_publication_tables t
    JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
    WHERE t.pubname OPERATOR(pg_catalog.=) $1 AND pg_catalog.to_jsonb(t) ->> 'rowfilter' IS NULL
    ORDER BY 1";

pub(super) const VERSION: &str = "SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4";

/// Of `tgtype`, 67 are row triggers, BEFORE and INSTEAD OF; 60 are INSERT, DELETE, UPDATE and TRUNCATE. ENABLE ALWAYS,
/// because `session_replication_role` switches off what is not. Those who apply a subscription fire no statement trigger.
pub(super) const TRIGGERED: &str = "
    SELECT t.tgrelid
    FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc f ON f.oid = t.tgfoid
    WHERE f.proname = 'pgweir_invalidate' AND NOT t.tgisinternal AND t.tgenabled = 'A'
      AND t.tgqual IS NULL AND t.tgattr::pg_catalog.text = '' AND t.tgtype & 67 = 0
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_subscription_rel s WHERE s.srrelid = t.tgrelid)
    GROUP BY t.tgrelid HAVING pg_catalog.bit_or(t.tgtype) & 60 = 60
    ORDER BY 1";

pub(super) const EVENT_TRIGGERS: &str = "
    SELECT count(DISTINCT e.evtevent) = 2
    FROM pg_catalog.pg_event_trigger e JOIN pg_catalog.pg_proc f ON f.oid = e.evtfoid
    WHERE f.proname = 'pgweir_definitions' AND e.evtenabled = 'A' AND e.evttags IS NULL
      AND e.evtevent IN ('ddl_command_end', 'sql_drop')";
