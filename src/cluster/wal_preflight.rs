//! What a server needs so that writes that bypass the proxy are heard of, and what it lacks.

use std::fmt;

use tokio_postgres::Client;

use super::catalog_loader::FIRST_WITH_MESSAGES;

mod queries;

/// Tables named in one complaint.
const MOST_NAMED: usize = 20;

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Who asks.
    pub user: String,
    /// `server_version_num`
    pub version: i32,
    /// `wal_level`
    pub wal_level: String,
    /// Replication slots, and walsenders, that are free.
    pub free_slots: i64,
    /// Likewise.
    pub free_senders: i64,
    /// May the user replicate?
    pub may_replicate: bool,
    /// The publication, if it is there.
    pub publication: Option<Publication>,
    /// Tables of the publication whose rows cannot be told apart: the server refuses to change them.
    pub without_identity: Vec<String>,
    /// Tables whose changes go unheard.
    pub unheard: Vec<String>,
}

/// A publication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publication {
    /// FOR ALL TABLES
    pub all_tables: bool,
    /// It publishes every kind of change.
    pub is_complete: bool,
    /// It lists tables, or all of them.
    pub has_tables: bool,
}

/// One thing that is wrong, with what puts it right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The log does not say enough.
    WalLevel(String),
    /// `max_replication_slots`
    Slots,
    /// `max_wal_senders`
    Senders,
    /// The user may not replicate.
    Replication(String),
    /// There is no such publication.
    Publication(String),
    /// It leaves out kinds of changes.
    Incomplete(String),
    /// Tables that the application cannot update any more.
    Identity {
        /// Every table there is and every one there will be is published.
        all_tables: bool,
        /// Which.
        tables: Vec<String>,
    },
    /// Reads of these are not kept.
    Unheard(Vec<String>),
}

impl Lack {
    /// Nothing is heard at all.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::WalLevel(_) | Self::Slots | Self::Senders | Self::Replication(_) | Self::Publication(_) => true,
            Self::Incomplete(_) | Self::Identity { .. } | Self::Unheard(_) => false,
        }
    }

    /// It is as somebody may have meant it.
    #[must_use]
    pub fn is_note(&self) -> bool {
        matches!(self, Self::Unheard(_))
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WalLevel(level) => {
                write!(f, "wal_level is {level}: ALTER SYSTEM SET wal_level = 'logical'; then restart the server")
            }
            Self::Slots => f.write_str(
                "no replication slot is free: raise it by ALTER SYSTEM SET max_replication_slots = 10; then restart the server",
            ),
            Self::Senders => f.write_str(
                "no walsender is free: raise it by ALTER SYSTEM SET max_wal_senders = 10; then restart the server",
            ),
            Self::Replication(user) => {
                write!(f, "{user} may not replicate: ALTER ROLE {} REPLICATION;", quoted(user))
            }
            Self::Publication(name) => {
                let name = quoted(name);
                write!(f, "there is no publication {name}: CREATE PUBLICATION {name} FOR TABLE …; or, with ")?;
                write!(f, "deploy/direct-writes.sql, CREATE PUBLICATION {name};")
            }
            Self::Incomplete(name) => {
                let name = quoted(name);
                write!(f, "publication {name} leaves out kinds of changes, so that its tables do not count: ")?;
                write!(f, "ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate');")
            }
            Self::Identity { all_tables, tables } => {
                let all = if *all_tables { " (it is FOR ALL TABLES: name tables instead)" } else { "" };
                write!(f, "the server refuses UPDATE and DELETE of published tables without replica identity{all}; ")?;
                f.write_str("add a primary key, or ALTER TABLE … REPLICA IDENTITY FULL; to ")?;
                list(f, tables)
            }
            Self::Unheard(tables) => {
                f.write_str("reads of tables that are neither published nor have the triggers are not cached: ")?;
                list(f, tables)
            }
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, tables: &[String]) -> fmt::Result {
    f.write_str(&tables.get(..MOST_NAMED.min(tables.len())).unwrap_or_default().join(", "))?;
    match tables.len().saturating_sub(MOST_NAMED) {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}

/// An identifier as SQL wants it.
pub(super) fn quoted(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Asks a server. The caller sets the deadline.
///
/// # Errors
/// The server refuses a question, or is gone.
pub async fn look(client: &Client, publication: &str) -> Result<Found, tokio_postgres::Error> {
    let row = client.query_one(queries::SERVER, &[]).await?;
    let mut found = Found {
        user: row.try_get(0)?,
        version: row.try_get(1)?,
        wal_level: row.try_get(2)?,
        free_slots: row.try_get(3)?,
        free_senders: row.try_get(4)?,
        may_replicate: row.try_get(5)?,
        ..Found::default()
    };
    if let Some(row) = client.query_opt(queries::PUBLICATION, &[&publication]).await? {
        found.publication = Some(Publication {
            all_tables: row.try_get(0)?,
            is_complete: row.try_get(1)?,
            has_tables: row.try_get(2)?,
        });
        found.without_identity = names(client.query(queries::WITHOUT_IDENTITY, &[&publication]).await?)?;
    }
    let hears_triggers = found.version >= FIRST_WITH_MESSAGES;
    found.unheard = names(client.query(queries::UNHEARD, &[&publication, &hears_triggers]).await?)?;
    Ok(found)
}

fn names(rows: Vec<tokio_postgres::Row>) -> Result<Vec<String>, tokio_postgres::Error> {
    rows.iter().map(|row| row.try_get(0)).collect()
}

impl Found {
    /// What is missing, the worst first.
    #[must_use]
    pub fn lacks(&self, publication: &str) -> Vec<Lack> {
        let mut lacks = Vec::new();
        if self.wal_level != "logical" {
            lacks.push(Lack::WalLevel(self.wal_level.clone()));
        }
        if self.free_slots < 1 {
            lacks.push(Lack::Slots);
        }
        if self.free_senders < 1 {
            lacks.push(Lack::Senders);
        }
        if !self.may_replicate {
            lacks.push(Lack::Replication(self.user.clone()));
        }
        match &self.publication {
            None => lacks.push(Lack::Publication(publication.to_owned())),
            Some(found) => {
                if found.has_tables && !found.is_complete {
                    lacks.push(Lack::Incomplete(publication.to_owned()));
                }
                if !self.without_identity.is_empty() {
                    let tables = self.without_identity.clone();
                    lacks.push(Lack::Identity { all_tables: found.all_tables, tables });
                }
                if !self.unheard.is_empty() {
                    lacks.push(Lack::Unheard(self.unheard.clone()));
                }
            }
        }
        lacks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Found {
        Found {
            user: "watch".to_owned(),
            version: 150_000,
            wal_level: "logical".to_owned(),
            free_slots: 1,
            free_senders: 1,
            may_replicate: true,
            publication: Some(Publication { all_tables: false, is_complete: true, has_tables: true }),
            ..Found::default()
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Found), is_fatal: bool, expected: &str) {
        let mut found = ready();
        change(&mut found);
        let lacks = found.lacks("pgweir");
        let [lack] = &*lacks else { panic!("{lacks:?}") };
        assert_eq!(lack.is_fatal(), is_fatal);
        assert!(lack.to_string().contains(expected), "{lack}");
    }

    #[test]
    fn a_server_that_is_ready_lacks_nothing() {
        assert_eq!(ready().lacks("pgweir"), []);
    }

    #[test]
    fn each_lack_names_the_command_that_ends_it() {
        let wal_level = |found: &mut Found| found.wal_level = "replica".to_owned();
        check(wal_level, true, "ALTER SYSTEM SET wal_level = 'logical'");
        check(|found| found.free_slots = 0, true, "ALTER SYSTEM SET max_replication_slots");
        check(|found| found.free_senders = 0, true, "ALTER SYSTEM SET max_wal_senders");
        check(|found| found.may_replicate = false, true, "ALTER ROLE watch REPLICATION;");
        check(|found| found.publication = None, true, "CREATE PUBLICATION pgweir;");
        let partial = Publication { is_complete: false, has_tables: true, all_tables: false };
        check(|found| found.publication = Some(partial), false, "SET (publish = 'insert, update, delete, truncate')");
        let log = vec!["public.log".to_owned()];
        check(|found| found.without_identity = log.clone(), false, "REPLICA IDENTITY FULL; to public.log");
        check(|found| found.unheard = log.clone(), false, "not cached: public.log");
        let all = |found: &mut Found| {
            found.publication = Some(Publication { all_tables: true, is_complete: true, has_tables: true });
            found.without_identity = log.clone();
        };
        check(all, false, "FOR ALL TABLES: name tables instead");
    }

    #[test]
    fn an_empty_publication_may_leave_out_what_it_likes() {
        let empty = Publication { is_complete: false, has_tables: false, all_tables: false };
        assert_eq!(Found { publication: Some(empty), ..ready() }.lacks("pgweir"), []);
    }

    #[test]
    fn of_many_tables_some_are_named() {
        let lack = Lack::Unheard((0..25).map(|number| format!("t{number}")).collect());
        assert!(lack.to_string().ends_with("t19 and 5 more"), "{lack}");
    }

    #[test]
    fn names_are_quoted_where_sql_wants_it() {
        assert_eq!(quoted("pgweir_1"), "pgweir_1");
        assert_eq!(quoted("My \"own\""), "\"My \"\"own\"\"\"");
        assert_eq!(quoted("1st"), "\"1st\"");
    }
}
