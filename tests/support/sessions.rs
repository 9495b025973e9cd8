//! Sessions of tokio-postgres.

use std::time::Duration;

use tokio_postgres::{Client, Config, NoTls};

/// A session whose connection is driven by a task of its own until the client is dropped.
pub async fn connect(config: &Config) -> Client {
    try_connect(config).await.unwrap_or_else(|error| panic!("connect {config:?}: {error:?}"))
}

/// As [`connect`], for logins that may fail.
pub async fn try_connect(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// A configuration for one of this machine's ports.
pub fn config(port: u16, user: &str, database: &str) -> Config {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user(user).dbname(database);
    config.connect_timeout(Duration::from_secs(30));
    config
}
