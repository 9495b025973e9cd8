//! The files that say who may come in.

use std::{fs, path::Path, sync::Arc};

use crate::{
    auth::{HbaRules, IdentMaps, UserList},
    client::Settings,
    config::{AuthType, Config, ConfigError, Lines},
    net::tls::{TlsSetup, trusted_file},
};

/// Reads the configuration and the files that it names.
pub(crate) fn load(path: &Path) -> Result<Settings, ConfigError> {
    with_files(path, Config::load(path)?)
}

/// The files that `client_tls_*` and `server_tls_*` name.
fn load_tls(path: &Path, config: &Config) -> Result<TlsSetup, ConfigError> {
    TlsSetup::load(&config.pgbouncer).map_err(|error| {
        let location = error.key.as_deref().and_then(|key| Lines::read(path).of_main_key(key));
        ConfigError { location, ..error }
    })
}

/// Reads the files that a configuration names.
pub(crate) fn with_files(path: &Path, config: Config) -> Result<Settings, ConfigError> {
    let tls = load_tls(path, &config)?;
    let rules = Arc::new(read_rules(&config)?);
    let users = match &config.pgbouncer.auth_file {
        None => UserList::default(),
        Some(file) => match fs::read(file) {
            Ok(bytes) => UserList::parse(&String::from_utf8_lossy(&bytes)),
            Err(error) => {
                tracing::error!(file = %file, %error, "auth_file not read");
                UserList::default()
            }
        },
    };
    if let Some(line) = users.broken_line() {
        tracing::error!(line, "broken auth file");
    }
    let redis_roots = trusted_file("cache.redis_tls_ca_file", &config.cache.redis_tls_ca_file)?;
    Ok(Settings { config, users, rules, tls, redis_roots })
}

/// `auth_hba_file` with the maps of `auth_ident_file`; nothing where `auth_type` does not ask for them.
pub(crate) fn read_rules(config: &Config) -> Result<HbaRules, ConfigError> {
    let main = &config.pgbouncer;
    if main.auth_type != AuthType::Hba {
        return Ok(HbaRules::default());
    }
    if main.auth_hba_file.is_empty() {
        return Err(missing("auth_hba_file", "nothing"));
    }
    let maps = match main.auth_ident_file.as_deref().filter(|file| !file.is_empty()) {
        None => IdentMaps::default(),
        Some(file) => {
            let text = read(file).map_err(|error| missing("auth_ident_file", &format!("{file}: {error}")))?;
            IdentMaps::parse(&text, file)?
        }
    };
    let file = &main.auth_hba_file;
    let text = read(file).map_err(|error| missing("auth_hba_file", &format!("{file}: {error}")))?;
    HbaRules::parse(&text, file, &maps, &read)
}

fn read(file: &str) -> std::io::Result<String> {
    fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn missing(key: &str, got: &str) -> ConfigError {
    let expected = "a readable file (auth_type = hba)".to_owned();
    ConfigError { location: None, key: Some(key.to_owned()), expected, got: got.to_owned() }
}
