//! The settings of `[pgbouncer]`: PgBouncer's, with its names, units and defaults, and a few of ours at the end.

use std::time::Duration;

use super::{
    choice::{AuthType, LogFormat, PoolMode, SslMode, StatsColumns},
    setting::settings,
    supported,
    text::{FileMode, NameList},
    tls,
};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

settings! {
    /// `[pgbouncer]`, which may also be spelled `[pgweir]`.
    pub struct MainSection {
        /// Users who may do everything on the console.
        admin_users: NameList = NameList::from(""), OnReload;
        /// Add the client's address to application_name when it connects.
        application_name_add_host: bool = false, OnReload;
        /// Database in which auth_query runs; the client's own if not set.
        auth_dbname: Option<String> = None, OnReload, supported::no_console_database;
        /// File with users and their secrets (userlist.txt).
        auth_file: Option<String> = None, OnReload;
        /// Rules in the syntax of pg_hba.conf, for auth_type = hba.
        auth_hba_file: String = String::new(), OnReload;
        /// Maps names of the operating system to database users, for auth_type = hba.
        auth_ident_file: Option<String> = None, OnReload;
        /// Options for auth_type = ldap.
        auth_ldap_options: Option<String> = None, OnReload;
        /// Returns name and secret of the user $1 that auth_file does not know.
        auth_query: String = "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END FROM pg_authid WHERE rolname=$1 AND rolcanlogin".to_owned(), OnReload;
        /// How clients prove who they are.
        auth_type: AuthType = AuthType::Md5, OnReload, supported::auth_type;
        /// The user who runs auth_query; not set: only auth_file is asked.
        auth_user: Option<String> = None, OnReload;
        /// A database that exists by the entry * only is forgotten after this time without use.
        autodb_idle_timeout: Duration = seconds(3600), OnReload;
        /// Longest wait of a cancel request for a server connection.
        cancel_wait_timeout: Duration = seconds(10), OnReload;
        /// Clients idle for longer, outside transactions, are disconnected; 0 never.
        client_idle_timeout: Duration = seconds(0), OnReload;
        /// Clients that take longer to log in are disconnected; 0 never.
        client_login_timeout: Duration = seconds(60), OnReload;
        /// Ciphers offered to clients with TLS 1.3, by OpenSSL's names; not set: all.
        client_tls13_ciphers: Option<String> = None, OnReload, tls::check_ciphers_13;
        /// Issuers of client certificates.
        client_tls_ca_file: String = String::new(), OnReload;
        /// Certificate shown to clients.
        client_tls_cert_file: String = String::new(), OnReload;
        /// Ciphers offered to clients with TLS 1.2, by OpenSSL's names; default: all that are built.
        client_tls_ciphers: String = "default".to_owned(), OnReload, tls::check_ciphers;
        /// Parameters of DHE key exchange, which is not built. Accepted without effect.
        client_tls_dheparams: String = "auto".to_owned(), OnReload, tls::check_dheparams;
        /// Curve of ECDH key exchange: auto, X25519, prime256v1 or secp384r1.
        client_tls_ecdhcurve: String = "auto".to_owned(), OnReload, tls::check_curve;
        /// Private key of client_tls_cert_file.
        client_tls_key_file: String = String::new(), OnReload;
        /// TLS versions offered to clients: secure, all, or a list of tlsv1.2 and tlsv1.3. Older ones are not built.
        client_tls_protocols: String = "secure".to_owned(), OnReload, tls::check_versions;
        /// Whether clients may or must use TLS.
        client_tls_sslmode: SslMode = SslMode::Disable, OnReload;
        /// The configuration file that the next RELOAD reads; the one of the command line if not set.
        conffile: Option<String> = None, OnReload;
        /// Server connections one user may hold to one database; 0 is unlimited.
        default_pool_size: u32 = 20, OnReload;
        /// Refuse the simple query protocol.
        disable_pqexec: bool = false, AtStart;
        /// How long a looked-up address is used.
        dns_max_ttl: Duration = seconds(15), OnReload;
        /// How long a failed look-up is remembered.
        dns_nxdomain_ttl: Duration = seconds(15), OnReload;
        /// How often the zones of host names are checked for a new serial; 0 never. Accepted without effect.
        dns_zone_check_period: Duration = seconds(0), OnReload;
        /// Clients idle inside a transaction for longer are disconnected; 0 never.
        idle_transaction_timeout: Duration = seconds(0), OnReload;
        /// Startup parameters that are ignored and not refused, such as extra_float_digits.
        ignore_startup_parameters: NameList = NameList::from(""), OnReload;
        /// Name of the service. Accepted without effect.
        job_name: String = "pgbouncer".to_owned(), AtStart;
        /// Addresses to listen on, separated by commas; * is all, nothing is no TCP.
        listen_addr: String = String::new(), AtStart;
        /// Connections the kernel queues while they are not accepted.
        listen_backlog: u32 = 128, AtStart;
        /// Port to listen on; it also names the unix socket.
        listen_port: u16 = 6432, AtStart;
        /// Log each login.
        log_connections: bool = true, OnReload;
        /// Log each disconnection, with its reason.
        log_disconnections: bool = true, OnReload;
        /// Log errors that are sent to clients.
        log_pooler_errors: bool = true, OnReload;
        /// Log a line of statistics each stats_period.
        log_stats: bool = true, OnReload;
        /// Log file; reopened on reload.
        logfile: String = String::new(), OnReload;
        /// A notice sent to each client that logs in.
        login_notify_message: String = String::new(), OnReload;
        /// Client connections altogether.
        max_client_conn: u32 = 100, OnReload;
        /// Client connections to one database; 0 is unlimited.
        max_db_client_connections: u32 = 0, OnReload;
        /// Server connections to one database; 0 is unlimited.
        max_db_connections: u32 = 0, OnReload;
        /// Longest protocol message in bytes.
        max_packet_size: u32 = 2_147_483_647, OnReload;
        /// Prepared statements kept on each server connection; 0: they are not followed.
        max_prepared_statements: u32 = 200, OnReload;
        /// Client connections of one user; 0 is unlimited.
        max_user_client_connections: u32 = 0, OnReload;
        /// Server connections of one user; 0 is unlimited.
        max_user_connections: u32 = 0, OnReload;
        /// Server connections a pool keeps open while it is in use.
        min_pool_size: u32 = 0, OnReload;
        /// This process among [peers]; 0 is none.
        peer_id: u32 = 0, OnReload, supported::peer_id;
        /// File for the process id; needed with -d.
        pidfile: String = String::new(), AtStart;
        /// Bytes of a socket buffer. Accepted without effect.
        pkt_buf: u32 = 4096, AtStart;
        /// An empty pool is forgotten after this time; 0 never.
        pool_idle_timeout: Duration = seconds(0), OnReload;
        /// When a server connection goes back to its pool.
        pool_mode: PoolMode = PoolMode::Session, OnReload;
        /// A statement that runs longer loses its connections; 0 never.
        query_timeout: Duration = seconds(0), OnReload;
        /// A client that waits this many seconds for a server connection gets a notice; 0 never.
        query_wait_notify: u32 = 5, OnReload;
        /// Longest wait for a free server connection before the client is disconnected; 0 waits forever.
        query_wait_timeout: Duration = seconds(120), OnReload;
        /// Server connections a pool may open beyond its size; 0 is none.
        reserve_pool_size: u32 = 0, OnReload;
        /// A client that waits this long may use them.
        reserve_pool_timeout: Duration = seconds(5), OnReload;
        /// Configuration of the resolver. Accepted without effect.
        resolv_conf: String = String::new(), AtStart;
        /// Reads from one socket before others get their turn. Accepted without effect.
        sbuf_loopcnt: u32 = 5, OnReload;
        /// Rounds of hashing for a SCRAM secret derived from a plain one.
        scram_iterations: u32 = 4096, OnReload, supported::scram_iterations;
        /// Server connections idle for longer are checked before use; 0 always.
        server_check_delay: Duration = seconds(30), OnReload;
        /// The check; <empty> is an empty query, nothing is no check.
        server_check_query: String = "<empty>".to_owned(), OnReload;
        /// Longest time to connect and log in to a server.
        server_connect_timeout: Duration = seconds(15), OnReload;
        /// After RECONNECT or a change, close server connections when their transaction ends, in session mode too.
        server_fast_close: bool = false, OnReload;
        /// Server connections idle for longer are closed; 0 never.
        server_idle_timeout: Duration = seconds(600), OnReload;
        /// Server connections older than this are closed when they are released; 0 uses each once.
        server_lifetime: Duration = seconds(3600), OnReload;
        /// Wait after a failed login before the next; where replicas are configured, until the member is well again.
        server_login_retry: Duration = seconds(15), OnReload;
        /// Sent when a server connection is released in session mode.
        server_reset_query: String = "DISCARD ALL".to_owned(), OnReload;
        /// Send it in every pool mode.
        server_reset_query_always: bool = false, OnReload;
        /// Use the server connection that has been idle longest, not shortest.
        server_round_robin: bool = false, OnReload;
        /// Ciphers offered to servers with TLS 1.3, by OpenSSL's names; not set: all.
        server_tls13_ciphers: Option<String> = None, OnReload, tls::check_ciphers_13;
        /// Issuers of server certificates.
        server_tls_ca_file: String = String::new(), OnReload;
        /// Certificate shown to servers.
        server_tls_cert_file: String = String::new(), OnReload;
        /// Ciphers offered to servers with TLS 1.2, by OpenSSL's names; default: all that are built.
        server_tls_ciphers: String = "default".to_owned(), OnReload, tls::check_ciphers;
        /// Private key of server_tls_cert_file.
        server_tls_key_file: String = String::new(), OnReload;
        /// TLS versions offered to servers: secure, all, or a list of tlsv1.2 and tlsv1.3. Older ones are not built.
        server_tls_protocols: String = "secure".to_owned(), OnReload, tls::check_versions;
        /// Whether connections to servers use TLS.
        server_tls_sslmode: SslMode = SslMode::Prefer, OnReload;
        /// Let several processes listen on the same port.
        so_reuseport: bool = false, AtStart;
        /// Seconds over which averages are taken.
        stats_period: u32 = 60, OnReload, supported::not_zero;
        /// Users who may use SHOW on the console.
        stats_users: NameList = NameList::from(""), OnReload;
        /// Longest time SUSPEND waits for buffers to empty.
        suspend_timeout: Duration = seconds(10), OnReload;
        /// Log to syslog.
        syslog: bool = false, OnReload;
        /// Facility for syslog.
        syslog_facility: String = "daemon".to_owned(), OnReload;
        /// Name for syslog.
        syslog_ident: String = "pgbouncer".to_owned(), OnReload;
        /// Accept a client only when it has sent something.
        tcp_defer_accept: bool = true, OnReload;
        /// Let the kernel find dead peers.
        tcp_keepalive: bool = true, OnReload;
        /// Unanswered probes until a peer is dead; 0 is the kernel's default.
        tcp_keepcnt: u32 = 0, OnReload;
        /// Idle seconds before the first probe; 0 is the kernel's default.
        tcp_keepidle: u32 = 0, OnReload;
        /// Seconds between probes; 0 is the kernel's default.
        tcp_keepintvl: u32 = 0, OnReload;
        /// Bytes of the kernel's socket buffers; 0 is the kernel's default.
        tcp_socket_buffer: u32 = 0, OnReload;
        /// Milliseconds until sent data that nobody acknowledges ends a connection; 0 is the kernel's default.
        tcp_user_timeout: u32 = 0, OnReload;
        /// Parameters kept for each client, beside those that PgBouncer always keeps.
        track_extra_parameters: NameList = NameList::from("IntervalStyle"), AtStart;
        /// A transaction that runs longer loses its connections; 0 never.
        transaction_timeout: Duration = seconds(0), OnReload;
        /// Directory of the unix socket, and of servers without host; @ starts an abstract name, nothing is no socket.
        unix_socket_dir: String = "/tmp".to_owned(), AtStart;
        /// Group of the unix socket.
        unix_socket_group: String = String::new(), AtStart;
        /// Permissions of the unix socket.
        unix_socket_mode: FileMode = FileMode(0o777), AtStart;
        /// The user to become when started as root.
        user: Option<String> = None, AtStart;
        /// How much is logged, 0 to 3; not set: as the command line says.
        verbose: Option<u32> = None, OnReload;

        /// Longest wait of a shutdown for clients or servers; 0 waits forever.
        shutdown_timeout: Duration = seconds(0), OnReload;
        /// Threads that serve clients; 0 is one for each core.
        workers: u32 = 0, AtStart;
        /// How log lines look: as PgBouncer writes them, or one JSON object each.
        log_format: LogFormat = LogFormat::Pgbouncer, AtStart;
        /// Columns of SHOW STATS: 23 for tools that know those of PgBouncer 1.25.2 and no more. STATS_TOTALS, STATS_AVERAGES and TOTALS follow.
        stats_columns: StatsColumns = StatsColumns::WithLogins, OnReload;
        /// Seconds for which an answer to auth_query is used again; 0 asks at each login. With SCRAM, who has a new
        /// password may be refused once within this time; the login after that asks.
        auth_query_cache_ttl: Duration = seconds(2), OnReload;
    }
}
