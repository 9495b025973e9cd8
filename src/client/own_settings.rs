//! `SET pgweir.…`: settings that the proxy keeps for a client.

use super::session::OwnSettings;
use crate::{
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
            // Strict covers writes that bypass this process, too; no cached answer can promise that.
            ("cache_consistency", "normal" | "default") => self.cache_is_off = false,
            ("cache_consistency", "strict") => self.cache_is_off = true,
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
            "max_staleness" => match self.max_staleness.or(default_staleness) {
                None | Some(0) => "0".to_owned(),
                Some(nanos) => format!("{}ms", nanos / 1_000_000),
            },
            _ => return Err(unknown(name)),
        })
    }
}

fn unknown(name: &str) -> ErrorResponse {
    ErrorResponse::error(SqlState(*b"42704"), format!("unrecognized configuration parameter \"pgweir.{name}\""))
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
    fn an_unknown_setting_is_refused_as_postgresql_would() {
        let error = OwnSettings::default().set("colour", "red").unwrap_err();
        assert_eq!(error.sqlstate, SqlState(*b"42704"));
    }
}
