//! The sections that PgBouncer does not have. Everything here is off, or harmless, until asked for.

use std::time::Duration;

use super::{
    choice::{CacheMode, Coherence, PrimaryReads, ReadWriteSplit, ReadYourWrites, RoleDetection, RowSecurity, Share},
    setting::settings,
    supported,
    text::{Hidden, SecretUrl},
};

settings! {
    /// `[routing]`: which member of a database serves a statement.
    pub struct RoutingSection {
        /// on: send reads to the members of [replicas]; log: only count those that would go there, as would_replica in
        /// SHOW QUERIES and in the label reason of pgweir_requests_total.
        read_write_split: ReadWriteSplit = ReadWriteSplit::Off, OnReload;
        /// Whose writes a read is sure to see. Not set: session, or database while the cache is on.
        read_your_writes: Option<ReadYourWrites> = None, OnReload;
        /// Reads on the primary. fallback: those that no replica can serve; always: also its share by weight; never: they
        /// wait for a replica, up to query_wait_timeout, unless they must see what replicas do not have yet.
        primary_reads: PrimaryReads = PrimaryReads::Fallback, OnReload;
        /// 1: a plain BEGIN under READ COMMITTED is answered by the proxy. Plain reads behind it run on a replica; the first
        /// statement of any other kind takes the transaction to the primary, where it stays. now() is the time when BEGIN got
        /// there, and tables that were read on a replica are not locked on the primary. For pool_mode = transaction.
        lazy_begin: bool = false, OnReload;
        /// Replicas of PostgreSQL 19 and later: how long a read outside of a transaction waits (WAIT FOR LSN) on the one that
        /// is nearest to what it must see, before it goes to the primary. It keeps a connection meanwhile; a
        /// shorter statement_timeout of the server's would close that. 0: it does not wait.
        wait_for_lsn_timeout: Duration = Duration::ZERO, OnReload, supported::wait_for_lsn;
        /// A replica further behind serves nothing.
        max_replica_lag: Duration = Duration::from_secs(10), OnReload;
        /// How often members are asked how far they are.
        lag_check_interval: Duration = Duration::from_millis(100), OnReload, supported::probe_interval;
        /// auto: ask each member whether it is in recovery and follow a failover; off: as the file says.
        role_detection: RoleDetection = RoleDetection::Auto, OnReload;
    }
}

settings! {
    /// `[cache]`: answers kept for repeated reads.
    pub struct CacheSection {
        /// 1: answer from the cache; observe: keep and answer nothing, and say in SHOW CACHE ADVICE and SHOW QUERIES what 1
        /// would answer and how much server time that would save.
        enabled: CacheMode = CacheMode::Off, OnReload;
        /// Memory for answers.
        size: u64 = 256 << 20, OnReload;
        /// Longest life of an answer; 0: until a write makes it void.
        ttl: Duration = Duration::from_secs(60), OnReload;
        /// Longer answers are not kept.
        max_result_size: u64 = 1 << 20, OnReload;
        /// Redis for answers that are not in memory (any more); not set: memory only. One server: redis://, rediss:// (TLS) or
        /// unix:///path?db=0; several: redis+sentinel://user:password@host:26379,host:26379/service/0 or
        /// redis+cluster://user:password@host:6379,host:6379, by TLS rediss+sentinel:// and rediss+cluster://. RESP3 with
        /// ?protocol=resp3; a password of the sentinels' own with ?sentinel_password=. What is there is believed only if it
        /// was made with the same secret.
        redis_url: Option<SecretUrl> = None, OnReload, supported::redis_url;
        /// File of the certificates that rediss:// trusts; nothing is those of the system.
        redis_tls_ca_file: String = String::new(), OnReload;
        /// What the names and seals of answers in Redis are made with, the same on every proxy, at least 16 characters;
        /// required with redis_url.
        secret: Option<Hidden> = None, OnReload, supported::cache_secret;
        /// A query waits so long for Redis, and asks the server then.
        redis_timeout: Duration = Duration::from_millis(5), OnReload, supported::redis_timeout;
        /// Redis is asked for, and given, answers of statements whose shape has lately taken the server as long, as a moving
        /// average; and asked for those that were not measured yet.
        redis_min_cost: Duration = Duration::from_micros(150), OnReload;
        /// What proxies that share Redis promise each other about writes.
        coherence: Coherence = Coherence::Strict, AtStart;
        /// Also answer reads inside of transactions, under READ COMMITTED, as long as those have written, locked and set
        /// nothing. Such a read takes no lock on its tables, and the server sees the session idle meanwhile.
        in_transactions: bool = false, OnReload;
        /// Also ask the primary what each cached statement reads, once per shape and catalog: one of which the proxy has missed
        /// something is not cached any more, and an error is logged. The control user needs the right to set
        /// log_min_messages (a superuser, or GRANT SET ON PARAMETER log_min_messages of PostgreSQL 15), so that no
        /// statement gets into the server's log, and to use the schemas that names are looked up in.
        cross_check: bool = false, OnReload;
        /// Who may get an answer that was fetched for somebody else. acl: whoever may read as a whole all that the statement
        /// reads, while nothing else tells roles apart: no row security, no settings of the role's own, no SET ROLE, no
        /// functions of users but IMMUTABLE ones in C. Whoever may not is refused by the server, as ever.
        share: Share = Share::Role, OnReload;
        /// Reads of tables with row-level security. scoped: an answer is kept for whoever asks as the same role with the same
        /// settings, where policies choose rows by nothing but tables, who asks, and settings with a dot in their names that
        /// the session has set itself.
        rls: RowSecurity = RowSecurity::Refuse, OnReload;
        /// Also hear writes that bypass the proxy, from a temporary replication slot of the primary. `pgweir check` says
        /// what the server lacks for that; reads of tables that are not published are not kept then.
        wal_invalidation: bool = false, AtStart;
        /// With wal_invalidation: the publication to listen to, which the operator creates. With deploy/direct-writes.sql
        /// it may be empty.
        wal_publication: String = "pgweir".to_owned(), AtStart, supported::publication;
        /// With wal_invalidation: a hit that begins so long after a write that bypassed the proxy could be seen includes it.
        /// Where that cannot be proven, nothing is answered from the cache.
        max_staleness_direct: Duration = Duration::from_secs(1), OnReload, supported::staleness_direct;
    }
}

settings! {
    /// `[insight]`: what is remembered about statements.
    pub struct InsightSection {
        /// Statements that take longer are kept for SHOW SLOW and slow_query_log; 0 keeps none.
        slow_query_threshold: Duration = Duration::from_millis(100), OnReload;
        /// File for slow statements, a line of JSON each, without literals; nothing is no file.
        slow_query_log: String = String::new(), OnReload;
        /// Ask the server for the plan of slow statements.
        explain_slow_queries: bool = false, OnReload;
    }
}

settings! {
    /// `[control]`: who runs probes, catalog loads and EXPLAIN.
    pub struct ControlSection {
        /// Not set: the database's user, else auth_user. A member of pg_monitor is recommended.
        user: Option<String> = None, OnReload;
        /// Not set: the one of auth_file.
        password: Option<Hidden> = None, OnReload;
    }
}

settings! {
    /// `[http]`: metrics, health and dashboard.
    pub struct HttpSection {
        /// Address and port to listen on, such as 127.0.0.1:9127; nothing is no listener.
        listen: String = String::new(), AtStart;
    }
}

settings! {
    /// `[sessions]`: session state in transaction pooling.
    pub struct SessionsSection {
        /// Keep the server connection of a client that uses session state, so that it notices no pooling.
        transparent_sessions: bool = true, OnReload;
        /// Longest time a client keeps a server connection for that; 0 is unlimited.
        max_pinned_time: Duration = Duration::ZERO, OnReload;
        /// Server connections of one pool that may be kept so; 0 is unlimited.
        max_pinned: u32 = 0, OnReload;
    }
}
