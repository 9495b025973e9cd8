//! Where Redis is: the spellings of `redis_url`.
//!
//! | spelling | what is there |
//! |---|---|
//! | `redis://[[user]:password@]host[:port][/number]` | one server |
//! | `rediss://…` | the same by TLS |
//! | `unix:///path[?db=number&user=…&pass=…]`, `redis+unix://…` | one server on this machine |
//! | `redis+sentinel://[[user]:password@]host[:26379],…/service[/number]` | whichever server the sentinels name |
//! | `redis+cluster://[[user]:password@]host[:port],…` | Redis Cluster, found through any of these |
//! | `rediss+sentinel://…`, `rediss+cluster://…` | the same by TLS |
//!
//! `?protocol=resp3` asks for RESP3. User and password are those of the servers; sentinels that want one of their own get
//! `?sentinel_user=…&sentinel_password=…`. `redis-sentinel` and `sentinel`, `redis-cluster` and `cluster` are understood, too:
//! clients of other languages spell it so. Valkey's own `valkey…` means the same as `redis…`.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, RedisResult, TlsCertificates,
    cluster::ClusterClient,
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};

use super::connection::Connection;

const SENTINEL_PORT: u16 = 26379;

/// What is wrong with an address; its text names no part of it that may be secret.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// No such spelling.
    #[error("redis, rediss, unix, redis+sentinel or redis+cluster expected in front of ://")]
    Scheme,
    /// `redis+sentinel` without a service.
    #[error("the name of the service that the sentinels know is expected behind the hosts")]
    Service,
    /// What redis says.
    #[error("{0}")]
    Redis(#[from] redis::RedisError),
}

/// Something that connections can be had of.
pub(super) enum Target {
    One(Box<Client>),
    Cluster(Box<ClusterClient>),
    Sentinel(Box<SentinelClient>),
}

/// The pieces of an address of several hosts.
#[derive(Debug, PartialEq, Eq)]
struct Parts<'a> {
    user: &'a str,
    hosts: Vec<&'a str>,
    path: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn of(rest: &'a str) -> Self {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (user, hosts),
            None => ("", authority),
        };
        Self { user, hosts: hosts.split(',').map(str::trim).collect(), path, query }
    }

    /// The address of one of the hosts; `path` and `query` are its own.
    fn url(&self, scheme: &str, host: &str, path: &str, query: &str) -> String {
        let at = if self.user.is_empty() { "" } else { "@" };
        format!("{scheme}://{}{at}{host}/{path}?{query}", self.user)
    }

    fn parameter(&self, wanted: &str) -> Option<&'a str> {
        self.query.split('&').find_map(|pair| pair.strip_prefix(wanted)?.strip_prefix('='))
    }
}

/// How a scheme is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    One,
    Sentinel,
    Cluster,
}

/// Is it by TLS, and what is there?
fn scheme(scheme: &str) -> Option<(bool, Kind)> {
    Some(match scheme {
        "redis" | "valkey" | "unix" | "redis+unix" | "valkey+unix" => (false, Kind::One),
        "rediss" | "valkeys" => (true, Kind::One),
        "redis+sentinel" | "redis-sentinel" | "valkey+sentinel" | "sentinel" => (false, Kind::Sentinel),
        "rediss+sentinel" | "rediss-sentinel" | "valkeys+sentinel" => (true, Kind::Sentinel),
        "redis+cluster" | "redis-cluster" | "valkey+cluster" | "cluster" => (false, Kind::Cluster),
        "rediss+cluster" | "rediss-cluster" | "valkeys+cluster" => (true, Kind::Cluster),
        _ => return None,
    })
}

impl Target {
    /// Understands an address. `roots` are the certificates that are trusted, in PEM; `None`: those of the system.
    pub(super) fn parse(url: &str, roots: Option<Vec<u8>>) -> Result<Self, AddressError> {
        let (name, rest) = url.split_once("://").ok_or(AddressError::Scheme)?;
        let (is_tls, kind) = scheme(name).ok_or(AddressError::Scheme)?;
        let certificates = roots.map(|roots| TlsCertificates { client_tls: None, root_cert: Some(roots) });
        let certificates = certificates.filter(|_| is_tls);
        let plain = if is_tls { "rediss" } else { "redis" };
        let parts = Parts::of(rest);
        match kind {
            Kind::One => Ok(Self::One(Box::new(one(url.into_connection_info()?, certificates)?))),
            Kind::Cluster => {
                let node = |host: &&str| parts.url(plain, host, parts.path, parts.query).into_connection_info();
                let nodes: Vec<ConnectionInfo> = parts.hosts.iter().map(node).collect::<RedisResult<_>>()?;
                let mut builder = ClusterClient::builder(nodes).retries(1);
                if let Some(certificates) = certificates {
                    builder = builder.certs(certificates);
                }
                Ok(Self::Cluster(Box::new(builder.build()?)))
            }
            Kind::Sentinel => Ok(Self::Sentinel(Box::new(sentinel(&parts, plain, is_tls, certificates)?))),
        }
    }

    /// A new connection; it answers nobody's query yet.
    pub(super) async fn connect(&mut self, deadline: Duration) -> RedisResult<Connection> {
        // Deadlines are those of whoever asks.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(deadline)).set_response_timeout(Some(deadline));
        Ok(match self {
            Self::One(client) => Connection::One(client.get_multiplexed_async_connection_with_config(&config).await?),
            Self::Sentinel(client) => Connection::One(client.get_async_connection_with_config(&config).await?),
            Self::Cluster(client) => {
                let config = redis::cluster::ClusterConfig::new()
                    .set_connection_timeout(deadline)
                    .set_response_timeout(deadline);
                Connection::Cluster(client.get_async_connection_with_config(config).await?)
            }
        })
    }

    /// Is it another server after a failover?
    pub(super) fn may_move(&self) -> bool {
        matches!(self, Self::Sentinel(_))
    }
}

/// Where messages between proxies go: any server of a cluster hands them on to the others.
#[derive(Clone)]
pub enum Way {
    /// One of these, the first that can be reached.
    Servers(Vec<Client>),
    /// Whichever the sentinels name.
    Sentinel {
        /// `redis_url`
        url: String,
        /// Certificates that are trusted, in PEM; `None`: those of the system.
        roots: Option<Vec<u8>>,
    },
}

impl Way {
    /// Understands an address, as level two does.
    pub fn parse(url: &str, roots: Option<Vec<u8>>) -> Result<Self, AddressError> {
        let (name, rest) = url.split_once("://").ok_or(AddressError::Scheme)?;
        let (is_tls, kind) = scheme(name).ok_or(AddressError::Scheme)?;
        Ok(match (kind, Target::parse(url, roots.clone())?) {
            (_, Target::One(client)) => Self::Servers(vec![*client]),
            (Kind::Cluster, _) => {
                let certificates = roots.filter(|_| is_tls);
                let certificates =
                    certificates.map(|roots| TlsCertificates { client_tls: None, root_cert: Some(roots) });
                let (parts, plain) = (Parts::of(rest), if is_tls { "rediss" } else { "redis" });
                let node = |host: &&str| {
                    one(parts.url(plain, host, "", parts.query).into_connection_info()?, certificates.clone())
                };
                Self::Servers(parts.hosts.iter().map(node).collect::<RedisResult<_>>()?)
            }
            _ => Self::Sentinel { url: url.to_owned(), roots },
        })
    }

    /// The servers to be tried now, in that order.
    pub async fn clients(&self) -> Result<Vec<Client>, AddressError> {
        match self {
            Self::Servers(clients) => Ok(clients.clone()),
            Self::Sentinel { url, roots } => match Target::parse(url, roots.clone())? {
                Target::Sentinel(mut client) => Ok(vec![client.async_get_client().await?]),
                Target::One(_) | Target::Cluster(_) => Ok(Vec::new()),
            },
        }
    }
}

fn one(info: ConnectionInfo, certificates: Option<TlsCertificates>) -> RedisResult<Client> {
    match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates),
        None => Client::open(info),
    }
}

fn sentinel(
    parts: &Parts<'_>,
    plain: &str,
    is_tls: bool,
    certificates: Option<TlsCertificates>,
) -> Result<SentinelClient, AddressError> {
    let mut path = parts.path.split('/');
    let service = path.next().filter(|service| !service.is_empty()).ok_or(AddressError::Service)?;
    let number = path.next().unwrap_or_default();
    let protocol = parts.parameter("protocol").map(|protocol| format!("protocol={protocol}")).unwrap_or_default();
    let node = parts.url(plain, "node", number, &protocol).into_connection_info()?;
    let has_port = |host: &str| host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = |host: &&str| {
        let port = if has_port(host) { String::new() } else { format!(":{SENTINEL_PORT}") };
        Ok(format!("{plain}://{host}{port}").into_connection_info()?.addr().clone())
    };
    let sentinels: Vec<_> = parts.hosts.iter().map(address).collect::<RedisResult<_>>()?;
    let settings = node.redis_settings();
    let mut builder = SentinelClientBuilder::new(sentinels, service, SentinelServerType::Master)?
        .set_client_to_redis_db(settings.db())
        .set_client_to_redis_protocol(settings.protocol());
    if let Some(user) = settings.username() {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = settings.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    if is_tls {
        builder = builder.set_client_to_redis_tls_mode(redis::TlsMode::Secure);
    }
    if let Some(certificates) = certificates {
        builder = builder
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_certificates(certificates);
    }
    // Through an address as well, for what is written with %.
    let own = |part: &str| parts.parameter(part).unwrap_or_default();
    if let Some(password) = parts.parameter("sentinel_password") {
        let own = format!("redis://{}:{password}@node", own("sentinel_user")).into_connection_info()?;
        if let Some(user) = own.redis_settings().username() {
            builder = builder.set_client_to_sentinel_username(user);
        }
        builder = builder.set_client_to_sentinel_password(own.redis_settings().password().unwrap_or_default());
    }
    Ok(builder.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: Result<&str, &str>) {
        let found = Target::parse(url, None).map(|target| match target {
            Target::One(client) => {
                let info = client.get_connection_info();
                let settings = info.redis_settings();
                let user = settings.username().unwrap_or("-");
                let password = settings.password().unwrap_or("-");
                let protocol = format!("{:?}", settings.protocol());
                format!("{} {} {user} {password} {protocol}", info.addr(), settings.db())
            }
            Target::Cluster(_) => "cluster".to_owned(),
            Target::Sentinel(_) => "sentinels".to_owned(),
        });
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert!(found.contains(expected), "{url}: {found}"),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{url}: {error}"),
            (found, expected) => panic!("{url}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn one_server_is_spelled_as_everywhere() {
        check("redis://127.0.0.1:6379/0", Ok("127.0.0.1:6379 0 - - RESP2"));
        check("redis://cache", Ok("cache:6379 0 - - RESP2"));
        check("redis://:p%40ss@cache:1/3?protocol=resp3", Ok("cache:1 3 - p@ss RESP3"));
        check("rediss://me:secret@cache:2", Ok("cache:2 0 me secret"));
        check("valkey://[::1]:6380/1", Ok("::1:6380 1"));
        check("unix:///run/redis.sock?db=2&pass=x", Ok("/run/redis.sock 2 - x"));
        check("redis+unix:///run/redis.sock", Ok("/run/redis.sock 0"));
    }

    #[test]
    fn several_hosts_are_a_cluster_or_sentinels() {
        check("redis+cluster://a:7000,b:7001", Ok("cluster"));
        check("rediss+cluster://me:secret@a,b,c?protocol=resp3", Ok("cluster"));
        check("redis+sentinel://:secret@a:26379,b,c/main/2?protocol=resp3", Ok("sentinels"));
        check("rediss-sentinel://a/main?sentinel_user=me&sentinel_password=p%40ss", Ok("sentinels"));
    }

    #[test]
    fn what_is_wrong_is_said_without_a_word_of_the_secret() {
        check("http://cache", Err("expected in front of ://"));
        check("redis+sentinel://:hunter2@a:26379", Err("name of the service"));
        check("redis://cache/x", Err("Invalid database number"));
        check("redis+cluster://:hunter2@a:port", Err("did not parse"));
        for url in [
            "redis://:hunter2@cache/x",
            "redis+sentinel://:hunter2@a",
            "redis+cluster://:hunter2@a:port",
            "x://:hunter2@a",
        ] {
            let error = Target::parse(url, None).map(|_| ()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn the_parts_of_an_address_of_several_hosts() {
        let parts = Parts::of("me:se@cret@a:1,b/mymaster/2?protocol=resp3&sentinel_password=x");
        assert_eq!((parts.user, &*parts.hosts, parts.path), ("me:se@cret", &["a:1", "b"][..], "mymaster/2"));
        assert_eq!((parts.parameter("sentinel_password"), parts.parameter("password")), (Some("x"), None));
    }
}
