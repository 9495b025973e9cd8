//! One line of rules, column by column.

use core::net::IpAddr;
use std::{path::Path, sync::Arc};

use super::{Addresses, HbaRule, Kind, Names, ReadFile, fields::Field, fields::Token, fields::fields, refuse};
use crate::{
    auth::{IdentMap, IdentMaps, Method},
    config::ConfigError,
};

/// Files may name files so deep.
const NESTED_FILES: usize = 10;

/// Where a line stands, and what it may refer to.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) file: &'a str,
    pub(super) number: usize,
    pub(super) maps: &'a IdentMaps,
    pub(super) read: ReadFile<'a>,
}

/// The column whose names are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    Databases,
    Users,
}

impl Line<'_> {
    fn refuse(&self, expected: &str, got: &str) -> ConfigError {
        refuse(self.file, self.number, expected, got)
    }

    pub(super) fn rule(&self, columns: &[Field]) -> Result<HbaRule, ConfigError> {
        let mut columns = columns.iter();
        let kind = self.kind(self.word(columns.next(), KINDS)?)?;
        let databases = self.names(columns.next(), Column::Databases)?;
        let users = self.names(columns.next(), Column::Users)?;
        let addresses = match kind {
            Kind::Local => Addresses::All,
            Kind::Host | Kind::HostSsl | Kind::HostNoSsl => self.addresses(&mut columns)?,
        };
        let method = self.method(self.word(columns.next(), METHODS)?)?;
        let map = self.options(columns, method)?;
        Ok(HbaRule { line: self.number, method, map, kind, databases, users, addresses })
    }

    fn word<'f>(&self, column: Option<&'f Field>, expected: &str) -> Result<&'f Token, ConfigError> {
        match column.map(Vec::as_slice) {
            Some([word]) => Ok(word),
            Some(words) => Err(self.refuse(expected, &join(words))),
            None => Err(self.refuse(expected, "the end of the line")),
        }
    }

    fn kind(&self, word: &Token) -> Result<Kind, ConfigError> {
        match word.text.as_str() {
            "local" => Ok(Kind::Local),
            "host" => Ok(Kind::Host),
            "hostssl" => Ok(Kind::HostSsl),
            "hostnossl" => Ok(Kind::HostNoSsl),
            other => Err(self.refuse(KINDS, other)),
        }
    }

    fn names(&self, column: Option<&Field>, which: Column) -> Result<Names, ConfigError> {
        let expected = match which {
            Column::Databases => "databases",
            Column::Users => "users",
        };
        let mut names = Names::default();
        let column = column.ok_or_else(|| self.refuse(expected, "the end of the line"))?;
        self.add(column, which, self.file, 0, &mut names)?;
        Ok(names)
    }

    /// `file` is where the words stand.
    fn add(
        &self,
        words: &[Token],
        which: Column,
        file: &str,
        depth: usize,
        names: &mut Names,
    ) -> Result<(), ConfigError> {
        for word in words {
            let unquoted = if word.is_quoted { "" } else { word.text.as_str() };
            match (unquoted, which) {
                ("all", _) => names.all = true,
                ("sameuser", Column::Databases) => names.same_user = true,
                ("replication", Column::Databases) => names.replication = true,
                ("samerole" | "samegroup", Column::Databases) => {
                    return Err(self.refuse("names (roles are known to servers only)", &word.text));
                }
                (text, _) if text.starts_with('@') => {
                    let name = text.get(1..).unwrap_or_default();
                    self.add_file(name, which, file, depth, names)?;
                }
                (text, _) if text.starts_with(['+', '/']) => {
                    return Err(self.refuse("names (no groups, no regular expressions)", text));
                }
                _ => names.names.push(word.text.clone()),
            }
        }
        Ok(())
    }

    fn add_file(
        &self,
        name: &str,
        which: Column,
        parent: &str,
        depth: usize,
        names: &mut Names,
    ) -> Result<(), ConfigError> {
        if depth >= NESTED_FILES {
            return Err(self.refuse("files that do not name each other", name));
        }
        let path = Path::new(parent).parent().unwrap_or(Path::new("")).join(name);
        let path = path.to_string_lossy();
        let text = (self.read)(&path).map_err(|error| self.refuse("a readable file", &format!("{path}: {error}")))?;
        for (line, number) in text.lines().zip(1..) {
            for column in fields(line).map_err(|error| error.at(&path, number))? {
                self.add(&column, which, &path, depth + 1, names)?;
            }
        }
        Ok(())
    }

    /// `all`, `address/bits`, or an address and a mask.
    fn addresses<'f>(&self, columns: &mut impl Iterator<Item = &'f Field>) -> Result<Addresses, ConfigError> {
        let word = self.word(columns.next(), ADDRESSES)?;
        if word.is("all") {
            return Ok(Addresses::All);
        }
        let wrong = || self.refuse(ADDRESSES, &word.text);
        let found = match word.text.split_once('/') {
            Some((base, bits)) => within(base.parse().map_err(|_| wrong())?, bits.parse().map_err(|_| wrong())?),
            None => {
                let base = word.text.parse().map_err(|_| wrong())?;
                let mask = self.word(columns.next(), MASK)?;
                masked(base, mask.text.parse().map_err(|_| self.refuse(MASK, &mask.text))?)
            }
        };
        found.ok_or_else(wrong)
    }

    fn method(&self, word: &Token) -> Result<Method, ConfigError> {
        match word.text.as_str() {
            "trust" => Ok(Method::Trust),
            "reject" => Ok(Method::Reject),
            "md5" => Ok(Method::Md5),
            "password" => Ok(Method::Plain),
            "peer" => Ok(Method::Peer),
            "cert" => Ok(Method::Cert),
            "scram-sha-256" => Ok(Method::ScramSha256),
            other @ ("ldap" | "pam") => Err(self.refuse(&format!("{METHODS} ({INSTEAD})"), other)),
            other => Err(self.refuse(METHODS, other)),
        }
    }

    fn options<'f>(
        &self,
        columns: impl Iterator<Item = &'f Field>,
        method: Method,
    ) -> Result<Option<Arc<IdentMap>>, ConfigError> {
        let mut map = None;
        for column in columns {
            let word = self.word(Some(column), OPTIONS)?;
            let name = word.text.strip_prefix("map=").ok_or_else(|| self.refuse(OPTIONS, &word.text))?;
            if !matches!(method, Method::Peer | Method::Cert) {
                return Err(self.refuse("map= with peer or cert only", &word.text));
            }
            let found = self.maps.get(name).ok_or_else(|| self.refuse("a map of auth_ident_file", name))?;
            map = Some(Arc::clone(found));
        }
        Ok(map)
    }
}

const KINDS: &str = "local, host, hostssl or hostnossl";
const METHODS: &str = "trust, reject, md5, password, peer, cert or scram-sha-256";
const ADDRESSES: &str = "all, an address with /bits, or an address and a mask";
const MASK: &str = "a mask behind the address";
const OPTIONS: &str = "map=NAME or nothing";
/// What to do where PgBouncer would ask somebody else.
const INSTEAD: &str = "with passwords kept elsewhere, auth_query asks the server";

fn join(words: &[Token]) -> String {
    words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(",")
}

fn within(base: IpAddr, bits: u32) -> Option<Addresses> {
    match base {
        IpAddr::V4(base) => {
            let mask = u32::MAX.checked_shl(32_u32.checked_sub(bits)?).unwrap_or(0);
            Some(Addresses::V4 { base: base.to_bits(), mask })
        }
        IpAddr::V6(base) => {
            let mask = u128::MAX.checked_shl(128_u32.checked_sub(bits)?).unwrap_or(0);
            Some(Addresses::V6 { base: base.to_bits(), mask })
        }
    }
}

fn masked(base: IpAddr, mask: IpAddr) -> Option<Addresses> {
    match (base, mask) {
        (IpAddr::V4(base), IpAddr::V4(mask)) => Some(Addresses::V4 { base: base.to_bits(), mask: mask.to_bits() }),
        (IpAddr::V6(base), IpAddr::V6(mask)) => Some(Addresses::V6 { base: base.to_bits(), mask: mask.to_bits() }),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}
