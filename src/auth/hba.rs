//! Rules in the syntax of pg_hba.conf: how a connection has to prove who it is.
//!
//! A line that cannot be understood is an error: one that is skipped would change who gets in.
//!
//! <https://www.postgresql.org/docs/current/auth-pg-hba-conf.html>

mod fields;
mod line;

use core::net::IpAddr;
use std::{io, sync::Arc};

pub(super) use self::fields::{LineError, Token, fields};
use super::{IdentMap, IdentMaps, Method};
use crate::config::{ConfigError, Location};

/// Reads a file that a rule names with `@`.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> io::Result<String>;

/// The rules of a file, in their order.
#[derive(Clone, Debug, Default)]
pub struct HbaRules {
    rules: Vec<HbaRule>,
}

/// A connection, as rules look at it.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// `None` on a unix socket.
    pub address: Option<IpAddr>,
    /// Whether it is encrypted.
    pub is_tls: bool,
    /// The database that is asked for.
    pub database: &'a str,
    /// As whom.
    pub user: &'a str,
    /// Physical replication, which belongs to no database.
    pub is_replication: bool,
}

/// One line.
#[derive(Clone, Debug)]
pub struct HbaRule {
    /// Its number in the file.
    pub line: usize,
    /// What has to be proved.
    pub method: Method,
    /// Who may be whom, for `peer` and `cert`.
    pub map: Option<Arc<IdentMap>>,
    kind: Kind,
    databases: Names,
    users: Names,
    addresses: Addresses,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Local,
    Host,
    HostSsl,
    HostNoSsl,
}

#[derive(Clone, Debug, Default)]
struct Names {
    all: bool,
    same_user: bool,
    replication: bool,
    names: Vec<String>,
}

/// Bits of an address; those of IPv4 are the lowest 32.
#[derive(Clone, Copy, Debug)]
enum Addresses {
    All,
    V4 { base: u32, mask: u32 },
    V6 { base: u128, mask: u128 },
}

impl HbaRules {
    /// Reads the file's text; `file` is its path, which names errors and is where `@` names are relative to.
    ///
    /// # Errors
    /// The first line that is none.
    pub fn parse(text: &str, file: &str, maps: &IdentMaps, read: ReadFile<'_>) -> Result<HbaRules, ConfigError> {
        let mut rules = Vec::new();
        for (text, number) in text.lines().zip(1..) {
            let fields = fields(text).map_err(|error| error.at(file, number))?;
            if !fields.is_empty() {
                rules.push(line::Line { file, number, maps, read }.rule(&fields)?);
            }
        }
        Ok(HbaRules { rules })
    }

    /// The first rule that is about this connection.
    pub fn find(&self, connection: &Connection<'_>) -> Option<&HbaRule> {
        self.rules.iter().find(|rule| rule.is_about(connection))
    }
}

impl HbaRule {
    fn is_about(&self, connection: &Connection<'_>) -> bool {
        let comes_so = match (self.kind, connection.address) {
            (Kind::Local, None) => true,
            (Kind::Host, Some(address)) => self.addresses.contain(address),
            (Kind::HostSsl, Some(address)) => connection.is_tls && self.addresses.contain(address),
            (Kind::HostNoSsl, Some(address)) => !connection.is_tls && self.addresses.contain(address),
            (Kind::Local, Some(_)) | (Kind::Host | Kind::HostSsl | Kind::HostNoSsl, None) => false,
        };
        let wants = match connection.is_replication {
            true => self.databases.replication,
            false => self.databases.contain(connection.database, connection.user),
        };
        comes_so && wants && self.users.contain(connection.user, "")
    }
}

impl Names {
    fn contain(&self, name: &str, user: &str) -> bool {
        self.all || (self.same_user && name == user) || self.names.iter().any(|listed| listed == name)
    }
}

impl Addresses {
    fn contain(self, address: IpAddr) -> bool {
        match (self, address.to_canonical()) {
            (Addresses::All, _) => true,
            (Addresses::V4 { base, mask }, IpAddr::V4(address)) => (address.to_bits() ^ base) & mask == 0,
            (Addresses::V6 { base, mask }, IpAddr::V6(address)) => (address.to_bits() ^ base) & mask == 0,
            (Addresses::V4 { .. }, IpAddr::V6(_)) | (Addresses::V6 { .. }, IpAddr::V4(_)) => false,
        }
    }
}

/// What was expected in a line, and what stands there.
pub(super) fn refuse(file: &str, line: usize, expected: &str, got: &str) -> ConfigError {
    let location = Some(Location { file: file.to_owned(), line });
    ConfigError { location, key: None, expected: expected.to_owned(), got: got.to_owned() }
}

#[cfg(test)]
mod tests;
