//! `SET pgweir.…`: settings that the proxy keeps for a client.

use super::session::OwnSettings;
use crate::{
    lsn::{Lsn, WalGeometry},
    protocol::{ErrorResponse, SqlState},
    sql::RouteHint,
};

impl OwnSettings {
    /// Sets `pgweir.NAME`.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), ErrorResponse> {
        let value = value.trim();
        match (name, value) {
            ("route", "primary") => self.route = Some(RouteHint::Primary),
            ("route", "replica") => self.route = Some(RouteHint::Replica),
            ("route", "auto" | "default") => self.route = None,
            ("cache", "on" | "default") => self.cache_is_off = false,
            ("cache", "off") => self.cache_is_off = true,
            ("max_staleness", value) => self.max_staleness = staleness(value).ok_or_else(|| invalid(name, value))?,
            ("cache_consistency", "normal" | "default") => self.is_strict = false,
            ("cache_consistency", "strict") => self.is_strict = true,
            ("min_lsn", "default") => self.min_lsn = Lsn::default(),
            ("min_lsn", value) => {
                let position: Lsn = value.parse().map_err(|_| invalid(name, value))?;
                self.min_lsn = position.end_of_last_record(WalGeometry::default());
            }
            ("lsn", _) => return Err(fixed(name)),
            ("route" | "cache" | "cache_consistency", value) => return Err(invalid(name, value)),
            _ => return Err(unknown(name)),
        }
        Ok(())
    }

    /// The value of `pgweir.NAME`, as it would be set.
    pub(super) fn show(&self, name: &str, default_staleness: Option<u64>) -> Result<String, ErrorResponse> {
        Ok(match name {
            "route" => match self.route {
                Some(RouteHint::Primary) => "primary".to_owned(),
                Some(RouteHint::Replica) => "replica".to_owned(),
                None => "auto".to_owned(),
            },
            "cache" => if self.cache_is_off { "off" } else { "on" }.to_owned(),
            "cache_consistency" => if self.is_strict { "strict" } else { "normal" }.to_owned(),
            "max_staleness" => match self.max_staleness.or(default_staleness) {
                None | Some(0) => "0".to_owned(),
                Some(nanos) => format!("{}ms", nanos / 1_000_000),
            },
            "min_lsn" => self.min_lsn.to_string(),
            _ => return Err(unknown(name)),
        })
    }
}

fn unknown(name: &str) -> ErrorResponse {
    ErrorResponse::error(SqlState(*b"42704"), format!("unrecognized configuration parameter \"pgweir.{name}\""))
}

fn fixed(name: &str) -> ErrorResponse {
    ErrorResponse::error(SqlState(*b"55P02"), format!("parameter \"pgweir.{name}\" cannot be changed"))
}

fn invalid(name: &str, value: &str) -> ErrorResponse {
    let message = format!("invalid value for parameter \"{name}\": \"{value}\"");
    ErrorResponse::error(SqlState::INVALID_PARAMETER_VALUE, message)
}

/// `2s`, `500ms`, `0`: nanoseconds; none where user and database decide.
fn staleness(value: &str) -> Option<Option<u64>> {
    if matches!(value, "default" | "") {
        return Some(None);
    }
    let (number, unit) = match (value.strip_suffix("ms"), value.strip_suffix('s')) {
        (Some(number), _) => (number, 1e6),
        (None, Some(number)) => (number, 1e9),
        (None, None) => (value, 1e9),
    };
    let number: f64 = number.trim().parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(Some((number * unit) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staleness_is_read_in_seconds_and_milliseconds() {
        assert_eq!(staleness("2s"), Some(Some(2_000_000_000)));
        assert_eq!(staleness("500ms"), Some(Some(500_000_000)));
        assert_eq!(staleness("0"), Some(Some(0)));
        assert_eq!(staleness("default"), Some(None));
        assert_eq!(staleness("soon"), None);
        assert_eq!(staleness("-1s"), None);
    }

    #[test]
    fn a_token_is_a_position() {
        let mut own = OwnSettings::default();
        own.set("min_lsn", " 16/B374D848 ").unwrap();
        assert_eq!(own.show("min_lsn", None).unwrap(), "16/B374D848");
        for garbage in ["", "soon", "16", "16/B374D848; drop table t", "-1/0", "1/23456789A"] {
            assert_eq!(own.set("min_lsn", garbage).unwrap_err().sqlstate, SqlState(*b"22023"), "{garbage}");
        }
        assert_eq!(own.show("min_lsn", None).unwrap(), "16/B374D848");
        // Behind the header of a page there is no record yet.
        own.set("min_lsn", "16/B374C018").unwrap();
        assert_eq!(own.show("min_lsn", None).unwrap(), "16/B374C000");
        own.set("min_lsn", "default").unwrap();
        assert_eq!(own.show("min_lsn", None).unwrap(), "0/0");
        assert_eq!(own.set("lsn", "0/0").unwrap_err().sqlstate, SqlState(*b"55P02"));
    }

    #[test]
    fn strictness_and_the_cache_are_switched_apart() {
        let mut own = OwnSettings::default();
        own.set("cache", "off").unwrap();
        own.set("cache_consistency", "strict").unwrap();
        assert_eq!(own.show("cache_consistency", None).unwrap(), "strict");
        own.set("cache_consistency", "default").unwrap();
        assert_eq!((own.show("cache_consistency", None).unwrap().as_str(), own.cache_is_off), ("normal", true));
        assert_eq!(own.set("cache_consistency", "lax").unwrap_err().sqlstate, SqlState(*b"22023"));
    }

    #[test]
    fn an_unknown_setting_is_refused_as_postgresql_would() {
        let error = OwnSettings::default().set("colour", "red").unwrap_err();
        assert_eq!(error.sqlstate, SqlState(*b"42704"));
    }
}
