//! Tools that read the console, and the files that images and operators write for PgBouncer.

use std::{process::Command, sync::OnceLock};

use crate::{
    pooled, refused,
    support::{
        Authority, Member, Pair, Proxy, RawClient, cluster,
        cluster::{PASSWORD, USER},
        drivers::{self, installed},
        programs,
        proxy::{ADMIN, Table},
        scratch::{free_port, scratch},
    },
    tag,
};

#[test]
fn monitoring_tools_find_what_they_ask_for() {
    let (proxy, database) = pooled(2);
    proxy.session(&database).rows("select 1");
    let _client = proxy.session(&database);
    let mut python = Command::new(installed().join("venv/bin/python"));
    python.arg(format!("{}/console_tools.py", drivers::HERE));
    python.arg(format!("postgres://127.0.0.1:{}", proxy.port)).arg(&database);
    let output = python.env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["exporter", "datadog", "cloudnative_pg", "pgmetrics"]);
}

/// lib/pq: extra_float_digits at login, ignored by the file or not; and `;` as its ping, whose error it looks at no
/// further.
#[test]
fn lib_pq_logs_in_pings_and_asks() {
    for ignored in ["extra_float_digits", ""] {
        let proxy = Proxy::builder().set("ignore_startup_parameters", ignored).start();
        let mut client = RawClient::connect(&proxy.address());
        let parameters = [
            ("user", ADMIN),
            ("database", "pgbouncer"),
            ("client_encoding", "UTF8"),
            ("datestyle", "ISO, MDY"),
            ("extra_float_digits", "2"),
        ];
        client.log_in(&parameters, "").unwrap();
        assert_eq!(refused(&mut client, ";").1, "invalid command ';', use SHOW HELP;");
        assert_eq!(tag(&client.query("SHOW STATS")), "SHOW");
    }
}

/// pgweir with the files of an image, as they stand but for names, places and addresses.
struct Image {
    proxy: Proxy,
    database: String,
}

impl Image {
    fn start(server: &Member, text: &str, users: &str) -> Self {
        let (database, port) = (cluster().database(), free_port());
        let home = scratch().directory("image");
        let text = text
            .replace("{home}", &home.display().to_string())
            .replace("{server}", &format!("host=127.0.0.1 port={}", server.port))
            .replace("{database}", &database)
            .replace("{listen}", &port.to_string());
        let file = home.join("pgbouncer.ini");
        scratch().write(&file, &text);
        scratch().write(&home.join("userlist.txt"), &users.replace("{password}", PASSWORD));
        Self { proxy: Proxy::of_file(&file, port), database }
    }

    /// A user logs in with a password, as lib/pq and JDBC do, and the server knows them.
    #[track_caller]
    fn serves(&self, mut client: RawClient, user: &str) {
        let login = [("user", user), ("database", self.database.as_str()), ("extra_float_digits", "2")];
        client.log_in(&login, PASSWORD).unwrap_or_else(|error| panic!("{error:?}\n{}", self.proxy.last_words()));
        assert_eq!(client.rows("select current_database(), current_user"), [[self.database.as_str(), user]]);
    }

    #[track_caller]
    fn refuses(&self, mut client: RawClient, user: &str) {
        let error = client.log_in(&[("user", user), ("database", &self.database)], "wrong").unwrap_err();
        assert_eq!(error.field(b'M').unwrap(), "SASL authentication failed");
    }

    /// The administrator logs in with a password and finds what the file says.
    #[track_caller]
    fn is_set(&self, mut console: RawClient, settings: &[(&str, &str)]) {
        console.log_in(&[("user", ADMIN), ("database", "pgbouncer")], PASSWORD).unwrap();
        let config = Table::of(&console.query("SHOW CONFIG"));
        for (key, value) in settings {
            assert_eq!(config.select("key", key, "value"), [*value], "{key}");
        }
    }

    fn client(&self) -> RawClient {
        RawClient::connect(&self.proxy.address())
    }
}

/// Whom everybody trusts, and a server with TLS, which takes no certificate of anybody else.
fn encrypting() -> (&'static Authority, &'static Member) {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    let server = &cluster().replicas[0];
    let authority = AUTHORITY.get_or_init(|| {
        let authority = Authority::new("images");
        let pair = authority.issue("db", &["127.0.0.1"]);
        server.configure("ssl_cert_file", &pair.certificate.display().to_string());
        server.configure("ssl_key_file", &pair.key.display().to_string());
        server.configure("ssl_ca_file", &authority.file().display().to_string());
        server.configure("ssl", "on");
        authority
    });
    (authority, server)
}

/// What an operator prepares for `auth_query`: a function that looks secrets up for a role that may not.
fn prepare_lookup(schema: &str, function: &str, role: &str) {
    cluster().primary.session("postgres").rows(&format!(
        "create role {role} login; create schema if not exists {schema};
         create function {schema}.{function}(uname text) returns table (usename name, passwd text)
         language sql security definer set search_path = pg_catalog
         as 'select usename, passwd from pg_shadow where usename = $1';
         revoke all on function {schema}.{function} from public; grant usage on schema {schema} to {role};
         grant execute on function {schema}.{function} to {role}"
    ));
    cluster().catch_up();
}

/// Keys and typical values of the Bitnami image.
#[test]
fn the_file_of_the_bitnami_image_serves() {
    let text = "\
[databases]
{database} = {server} dbname={database}

[pgbouncer]
listen_port={listen}
listen_addr=0.0.0.0
unix_socket_dir={home}
unix_socket_mode=0777
auth_type=scram-sha-256
auth_file={home}/userlist.txt
admin_users=admin
stats_users=app
client_tls_sslmode=disable
server_tls_sslmode=prefer
logfile={home}/pgbouncer.log
pidfile={home}/pgbouncer.pid
ignore_startup_parameters=extra_float_digits
pool_mode=transaction
query_wait_timeout=120
max_client_conn=200
max_db_connections=50
idle_transaction_timeout=0.0
server_idle_timeout=600
server_reset_query=DISCARD ALL
default_pool_size=20
min_pool_size=0
reserve_pool_size=5
reserve_pool_timeout=5
stats_period=60
max_prepared_statements=100
server_round_robin=1
application_name_add_host=1
server_fast_close=0
log_connections=1
log_disconnections=1
log_pooler_errors=1
log_stats=1
";
    let users = "\"app\" \"{password}\"\n\"admin\" \"{password}\"\n";
    let image = Image::start(&cluster().primary, text, users);
    image.serves(image.client(), USER);
    image.refuses(image.client(), USER);
    image.is_set(
        image.client(),
        &[("max_client_conn", "200"), ("idle_transaction_timeout", "0"), ("unix_socket_mode", "511")],
    );
}

/// Keys and typical values of the edoburu image, but for two that PgBouncer itself does not know.
#[test]
fn the_file_of_the_edoburu_image_serves() {
    let text = "\
################## Auto generated ##################
[databases]
{database} = {server} auth_user=postgres
[pgbouncer]
listen_addr = *
listen_port = {listen}
unix_socket_dir = {home}
auth_file = {home}/userlist.txt
auth_type = scram-sha-256
auth_user = postgres
auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename=$1
pool_mode = transaction
max_client_conn = 2000
default_pool_size = 64
min_pool_size = 5
reserve_pool_size = 10
reserve_pool_timeout = 3
max_db_connections = 90
max_user_connections = 80
server_round_robin = 1
ignore_startup_parameters = extra_float_digits,search_path
disable_pqexec = 0
application_name_add_host = 1
max_prepared_statements = 200

# Log settings
log_connections = 1
log_disconnections = 1
log_pooler_errors = 1
log_stats = 1
stats_period = 60
verbose = 1
admin_users = postgres,admin
stats_users = app

# Connection sanity checks, timeouts
server_reset_query = DISCARD ALL
server_reset_query_always = 0
server_check_delay = 30
server_check_query = select 1
server_lifetime = 3600
server_idle_timeout = 600
server_connect_timeout = 15
server_login_retry = 15
client_login_timeout = 60
autodb_idle_timeout = 3600
dns_max_ttl = 15
dns_nxdomain_ttl = 15

# TLS settings
client_tls_sslmode = disable
client_tls_protocols = secure
client_tls_dheparams = auto
server_tls_sslmode = prefer
server_tls_protocols = secure

# Dangerous timeouts
query_timeout = 120
query_wait_timeout = 120
client_idle_timeout = 0
idle_transaction_timeout = 0
pkt_buf = 4096
max_packet_size = 2147483647
listen_backlog = 128
sbuf_loopcnt = 5
suspend_timeout = 10
tcp_defer_accept = 1
tcp_keepalive = 1
tcp_keepcnt = 9
tcp_keepidle = 7200
tcp_keepintvl = 75
tcp_user_timeout = 0
################## end file ##################
";
    let users = "\"postgres\" \"{password}\"\n\"admin\" \"{password}\"\n";
    let image = Image::start(&cluster().primary, text, users);
    image.serves(image.client(), "scrammer");
    image.refuses(image.client(), "scrammer");
    image.is_set(
        image.client(),
        &[("default_pool_size", "64"), ("tcp_keepcnt", "9"), ("admin_users", "postgres,admin")],
    );
}

/// Keys and typical values of Zalando's operator.
#[test]
fn the_file_of_zalandos_operator_serves() {
    let text = "\
# vim: set ft=dosini:

[databases]
* = {server} auth_user=pooler
postgres = {server} auth_user=pooler

[pgbouncer]
pool_mode = transaction
listen_port = {listen}
listen_addr = *
unix_socket_dir = {home}
admin_users = admin
stats_users = robot_zmon
auth_dbname = postgres
auth_file = {home}/userlist.txt
auth_query = SELECT * FROM pooler.user_lookup($1)
auth_type = md5
logfile = {home}/pgbouncer.log
pidfile = {home}/pgbouncer.pid

server_tls_sslmode = require
server_tls_ca_file = {authority}
server_tls_protocols = secure
client_tls_sslmode = require
client_tls_key_file = {key}
client_tls_cert_file = {certificate}

log_connections = 1
log_disconnections = 1
verbose = 1

max_prepared_statements = 200
default_pool_size = 15
# min_pool_size = 3
reserve_pool_size = 3
max_client_conn = 10000
max_db_connections = 30
idle_transaction_timeout = 600
server_login_retry = 5
ignore_startup_parameters = extra_float_digits,options
";
    let (authority, server) = encrypting();
    prepare_lookup("pooler", "user_lookup", "pooler");
    let own = authority.issue("pgweir", &["localhost"]);
    let users = "\"pooler\" \"{password}\"\n\"admin\" \"{password}\"\n";
    let image = Image::start(server, &with_certificates(text, authority, &own), users);
    let encrypted = || image.client().try_encrypt(&authority.trusting_client(&[])).unwrap();
    image.serves(encrypted(), "scrammer");
    image.serves(encrypted(), "md5er");
    image.refuses(encrypted(), "scrammer");
    image.is_set(encrypted(), &[("max_db_connections", "30"), ("verbose", "1"), ("server_login_retry", "5")]);
    let error = image.client().log_in(&[("user", "scrammer"), ("database", &image.database)], PASSWORD).unwrap_err();
    assert_eq!(error.field(b'M').unwrap(), "SSL required");
}

/// Its files with certificates, which is how CloudNativePG installs them: no list of users, access by rules, and an
/// administrator who is the process's own user of the operating system.
#[test]
fn the_files_of_cloudnative_pg_serve() {
    let text = "
[databases]
* = {server}

[pgbouncer]
pool_mode = transaction
auth_user = cnpg_pooler_pgbouncer
auth_query = SELECT usename, passwd FROM public.user_search($1)
auth_dbname = postgres

admin_users = pgbouncer
auth_hba_file = {rules}
auth_type = hba
client_tls_ca_file = {authority}
client_tls_cert_file = {certificate}
client_tls_key_file = {key}
client_tls_sslmode = prefer
default_pool_size = 10
ignore_startup_parameters = extra_float_digits,options
listen_addr = *
listen_port = {listen}
log_stats = 0
max_client_conn = 1000
server_tls_ca_file = {authority}
server_tls_cert_file = {auth_certificate}
server_tls_key_file = {auth_key}
server_tls_sslmode = verify-ca
unix_socket_dir = {home}
";
    let (authority, server) = encrypting();
    prepare_lookup("public", "user_search", "cnpg_pooler_pgbouncer");
    let rules = scratch().directory("rules").join("pg_hba.conf");
    let lines = "\nlocal pgbouncer pgbouncer peer\n\n\n\nhost all all 0.0.0.0/0 md5\nhost all all ::/0 md5\n";
    scratch().write(&rules, lines);
    let (own, asking) = (authority.issue("pgweir", &["localhost"]), authority.issue("cnpg_pooler_pgbouncer", &[]));
    let text = with_certificates(text, authority, &own)
        .replace("{rules}", &rules.display().to_string())
        .replace("{auth_certificate}", &asking.certificate.display().to_string())
        .replace("{auth_key}", &asking.key.display().to_string());
    let image = Image::start(server, &text, "");
    image.serves(image.client(), "scrammer");
    image.serves(image.client().try_encrypt(&authority.trusting_client(&[])).unwrap(), "scrammer");
    image.refuses(image.client(), "scrammer");
    let mut psql = programs::command(&programs::postgres_program("psql"));
    psql.args(["-XAt", "-U", "pgbouncer", "-d", "pgbouncer", "-p", &image.proxy.port.to_string(), "-h"]);
    psql.arg(image.proxy.home()).args(["-c", "PAUSE", "-c", "RESUME", "-c", "RELOAD", "-c", "SHOW CONFIG"]);
    let said = programs::run(psql);
    for line in ["PAUSE", "RESUME", "RELOAD", "auth_type|hba|md5|yes", "log_stats|0|1|yes"] {
        assert!(said.lines().any(|said| said == line), "{line} in {said}");
    }
    let stranger =
        RawClient::connect(&image.proxy.unix()).log_in(&[("user", "scrammer"), ("database", "postgres")], "");
    assert_eq!(stranger.unwrap_err().field(b'M').unwrap(), "no authentication method is found");
}

fn with_certificates(text: &str, authority: &Authority, own: &Pair) -> String {
    text.replace("{authority}", &authority.file().display().to_string())
        .replace("{certificate}", &own.certificate.display().to_string())
        .replace("{key}", &own.key.display().to_string())
}
