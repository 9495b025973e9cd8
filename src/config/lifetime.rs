//! `[cache_ttl]`: how long answers that read a table, or of one query shape, are kept.

use std::time::Duration;

use super::{error::Problem, value::SettingValue};

/// What may be written as a key.
const KEYS: &str =
    "schema.table, schema.*, database.schema.table, database.schema.* or a fingerprint of 32 hexadecimal digits";
const VALUES: &str = "seconds, or off";

/// An entry of `[cache_ttl]`.
#[derive(Clone, Debug, PartialEq)]
pub struct LifetimeConfig {
    /// Whose answers.
    pub subject: Subject,
    /// How long they are kept; zero: until a write makes them void; `None`: they are not kept.
    pub ttl: Option<Duration>,
}

/// Whose answers an entry of `[cache_ttl]` is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Statements of this shape, by the fingerprint that SHOW QUERIES prints.
    Shape(u128),
    /// Reads of tables, views or materialised views.
    Relations {
        /// As clients name it; `None` is each.
        database: Option<String>,
        /// As PostgreSQL keeps the name.
        schema: String,
        /// As PostgreSQL keeps the name; `None` is each of the schema.
        relation: Option<String>,
    },
}

impl Subject {
    fn parse(key: &str) -> Option<Self> {
        let names: Vec<&str> = key.split('.').collect();
        if names.iter().any(|name| name.is_empty()) {
            return None;
        }
        let relations = |database: Option<&str>, schema: &str, relation: &str| {
            let relation = Some(relation).filter(|name| *name != "*").map(str::to_owned);
            Self::Relations { database: database.map(str::to_owned), schema: schema.to_owned(), relation }
        };
        match *names {
            [digits] if digits.len() == 32 => u128::from_str_radix(digits, 16).ok().map(Self::Shape),
            [schema, relation] if schema != "*" => Some(relations(None, schema, relation)),
            [database, schema, relation] if schema != "*" && database != "*" => {
                Some(relations(Some(database), schema, relation))
            }
            _ => None,
        }
    }
}

impl LifetimeConfig {
    pub(super) fn parse(key: &str, value: &str) -> Result<Self, Problem> {
        let subject = Subject::parse(key).ok_or_else(|| Problem::new(KEYS, format!("`{key}`")).of(key))?;
        let ttl = match value {
            "off" => None,
            value => Some(Duration::parse(value).ok_or_else(|| Problem::value(key, VALUES, value))?),
        };
        Ok(Self { subject, ttl })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relations(database: Option<&str>, schema: &str, relation: Option<&str>) -> Subject {
        let [database, relation] = [database, relation].map(|name| name.map(str::to_owned));
        Subject::Relations { database, schema: schema.to_owned(), relation }
    }

    #[test]
    fn a_key_names_tables_or_a_shape() {
        for (key, expected) in [
            ("public.orders", relations(None, "public", Some("orders"))),
            ("reports.*", relations(None, "reports", None)),
            ("shop.public.orders", relations(Some("shop"), "public", Some("orders"))),
            ("shop.public.*", relations(Some("shop"), "public", None)),
            ("000000000000000000000000000000ff", Subject::Shape(255)),
        ] {
            let entry = LifetimeConfig::parse(key, "5");
            assert_eq!(entry, Ok(LifetimeConfig { subject: expected, ttl: Some(Duration::from_secs(5)) }), "{key}");
        }
        for key in ["orders", "*", "*.*", "*.orders", "a..b", "a.b.c.d", ".b", "zz0000000000000000000000000000ff"] {
            assert!(LifetimeConfig::parse(key, "5").is_err(), "{key}");
        }
    }

    #[test]
    fn a_value_is_a_time_or_off() {
        let ttl = |value| LifetimeConfig::parse("public.orders", value).map(|entry| entry.ttl);
        assert_eq!(ttl("0.5"), Ok(Some(Duration::from_millis(500))));
        assert_eq!(ttl("0"), Ok(Some(Duration::ZERO)));
        assert_eq!(ttl("off"), Ok(None));
        let refused = ttl("5 minutes").unwrap_err().at(None).to_string();
        assert_eq!(refused, "public.orders: expected seconds, or off, got 5 minutes");
    }
}
