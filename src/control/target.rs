//! Where a member is and whom the control plane is there.

use std::{fmt, sync::Arc, time::Duration};

use tokio_postgres::Config;

use super::{APPLICATION_NAME, tls};
use crate::net::tls::ConnectTls;

/// One member as the control plane sees it.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Host name, address, the directory of a unix socket (it starts with `/`), or the beginning of an abstract name (`@`).
    pub host: String,
    /// TCP port, also part of a unix socket's name.
    pub port: u16,
    /// Database to connect to.
    pub database: String,
    /// The control user.
    pub user: String,
    /// Its password; `None` where the server trusts or maps us.
    pub password: Option<String>,
    /// How connections are encrypted.
    pub tls: Arc<ConnectTls>,
}

/// How long the control plane waits for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Until a login is through.
    pub connect: Duration,
    /// Until one statement is answered; the server is told the same, so it does not go on alone.
    pub statement: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), statement: Duration::from_secs(10) }
    }
}

impl Target {
    pub(super) fn client_config(&self, deadlines: Deadlines) -> Config {
        let mut config = Config::new();
        match self.host.strip_prefix('@') {
            // As the kernel writes it.
            Some(name) => config.host_path(format!("\0{name}")),
            None => config.host(&self.host),
        };
        config
            .port(self.port)
            .dbname(&self.database)
            .user(&self.user)
            .application_name(APPLICATION_NAME)
            .options(format!("-c statement_timeout={}", deadlines.statement.as_millis().max(1)))
            .ssl_mode(tls::mode(&self.tls, &self.host))
            .connect_timeout(deadlines.connect)
            .tcp_user_timeout(deadlines.statement);
        if let Some(password) = &self.password {
            config.password(password);
        }
        config
    }
}

/// Printed as an operator would name it; the password never.
impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Target({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str) -> Target {
        Target {
            host: host.to_owned(),
            port: 5432,
            database: "shop".to_owned(),
            user: "pgweir".to_owned(),
            password: Some("geheim".to_owned()),
            tls: Arc::default(),
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        let target = target("db1");
        assert_eq!(target.to_string(), "pgweir@db1:5432/shop");
        assert!(!format!("{target:?}").contains("geheim"));
    }

    #[test]
    fn a_host_that_starts_with_a_slash_is_a_socket_directory() {
        use tokio_postgres::config::Host;
        let unix = target("/run/postgresql").client_config(Deadlines::default());
        assert_eq!(unix.get_hosts(), [Host::Unix("/run/postgresql".into())]);
        let tcp = target("db1").client_config(Deadlines::default());
        assert_eq!(tcp.get_hosts(), [Host::Tcp("db1".to_owned())]);
    }

    #[test]
    fn the_server_is_told_the_statement_deadline() {
        let deadlines = Deadlines { statement: Duration::from_millis(1500), ..Deadlines::default() };
        let config = target("db1").client_config(deadlines);
        assert_eq!(config.get_options(), Some("-c statement_timeout=1500"));
    }
}
