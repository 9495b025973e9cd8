//! Parameters of the start-up packet: what the session begins with.
//!
//! <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-OPTIONS>

use std::sync::Arc;

use super::{ClientError, session::OwnSettings};
use crate::{
    config::NameList,
    pool::{Asking, Pool},
    server::{ExecuteError, execute},
    session::{
        Parameters, SessionSettings,
        parameters::{TRACKED, push_literal, tracked},
        settings::push_set,
    },
};

/// Prefix of the proxy's own settings.
const OWN: &str = "pgweir.";

/// Which parameters a client may begin with.
pub(super) struct Rules<'a> {
    /// `ignore_startup_parameters`.
    pub ignored: &'a NameList,
    /// `track_extra_parameters`.
    pub extra: &'a NameList,
    /// Every parameter follows its client; else the tracked ones only.
    pub is_transparent: bool,
}

impl Rules<'_> {
    /// What `options` ask for, then what the packet asks for itself: as in PostgreSQL, the last word holds.
    pub(super) fn choose(
        &self,
        options: Option<&str>,
        explicit: Vec<(String, String)>,
    ) -> Result<Vec<(String, String)>, ClientError> {
        let mut parameters = Vec::new();
        for (name, value) in options.map(split_options).transpose()?.unwrap_or_default() {
            match self.accept(name, value, &mut parameters) {
                Err(_) if self.ignored.contains("options") => {}
                accepted => accepted?,
            }
        }
        for (name, value) in explicit {
            self.accept(name, value, &mut parameters)?;
        }
        Ok(parameters)
    }

    fn accept(&self, name: String, value: String, parameters: &mut Vec<(String, String)>) -> Result<(), ClientError> {
        if name.starts_with(OWN) || tracked(&name).is_some() {
            parameters.push((name, value));
        } else if self.ignored.contains(&name) {
        } else if self.is_transparent || self.extra.contains(&name) {
            parameters.push((name.to_ascii_lowercase(), value));
        } else {
            return Err(ClientError::Refused(format!("unsupported startup parameter: {name}")));
        }
        Ok(())
    }
}

/// `-c name=value`, `-cname=value` and `--name=value`, blanks escaped by `\`.
fn split_options(options: &str) -> Result<Vec<(String, String)>, ClientError> {
    let mut words = vec![String::new()];
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match (character, words.last_mut()) {
            ('\\', Some(word)) => word.extend(characters.next()),
            (blank, _) if blank.is_ascii_whitespace() => words.push(String::new()),
            (other, Some(word)) => word.push(other),
            (_, None) => {}
        }
    }
    let malformed = || ClientError::Refused("unsupported options startup parameter".to_owned());
    let mut found = Vec::new();
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let pair = match (word.as_str(), word.strip_prefix("--"), word.strip_prefix("-c")) {
            ("-c", ..) => words.next().ok_or_else(malformed)?,
            (_, Some(pair), _) | (_, None, Some(pair)) => pair.to_owned(),
            _ => return Err(malformed()),
        };
        let (name, value) = pair.split_once('=').ok_or_else(malformed)?;
        found.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(found)
}

/// SessionSettings of the proxy's own that came with the start-up packet.
pub(super) fn own_settings(parameters: &[(String, String)]) -> Result<OwnSettings, ClientError> {
    let mut own = OwnSettings::default();
    for (name, value) in parameters {
        if let Some(name) = name.strip_prefix(OWN) {
            own.set(name, value).map_err(|error| ClientError::Refused(error.message.into_owned()))?;
        }
    }
    Ok(own)
}

/// The values that a client starts with, in PostgreSQL's spelling, and those that RESET returns to.
///
/// What it asks for is tried on a server once per pool and value, so that a wrong value fails the login as it would
/// without a proxy.
pub(super) async fn choose_values(
    pool: &Arc<Pool>,
    greeting: &Parameters,
    asked: &[(String, String)],
    asking: Asking,
) -> Result<(Parameters, SessionSettings), ClientError> {
    let mut parameters = greeting.clone();
    let mut began_with: Vec<(&str, Box<str>)> = Vec::new();
    for (name, typed) in asked.iter().filter(|(name, _)| !name.starts_with(OWN)) {
        let tracked = tracked(name).and_then(|index| TRACKED.get(index)).copied();
        let name = tracked.unwrap_or(name);
        let is_known = name == "application_name" || parameters.get(name) == Some(typed.as_str());
        let value = match is_known.then(|| typed.as_str().into()).or_else(|| pool.spelling(name, typed)) {
            Some(known) => known,
            None => try_value(pool, name, typed, tracked.is_some(), asking).await?,
        };
        parameters.set(name, &value);
        began_with.push((name, value));
    }
    Ok((parameters, SessionSettings::new(began_with.iter().map(|(name, value)| (*name, &**value)))))
}

async fn try_value(
    pool: &Arc<Pool>,
    name: &str,
    typed: &str,
    is_tracked: bool,
    asking: Asking,
) -> Result<Box<str>, ClientError> {
    let server = pool.check_out(asking)?.ready().await?;
    let mut text = String::new();
    if is_tracked {
        // The server reports what has become of it.
        text = format!("SET {name}=");
        push_literal(&mut text, typed);
    } else {
        push_set(&mut text, name, typed, true);
    }
    let server = match execute(server.begin(), &text).await {
        Ok(server) => server,
        Err(ExecuteError::Refused { frame }) => return Err(ClientError::InvalidParameter(frame)),
        Err(ExecuteError::Io(error)) => return Err(ClientError::ServerGone(error)),
        Err(ExecuteError::Frame(_)) => return Err(ClientError::ServerProtocol("an answer to SET")),
    };
    let spelling: Box<str> = server.core().parameters.get(name).unwrap_or(typed).into();
    pool.learn_spelling(name, typed, &spelling);
    pool.check_in(server, pool.now());
    Ok(spelling)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_in_all_their_forms() {
        let found = split_options(r"-c a=1 -cb=2 --c-d=3 -c e=x\ y").unwrap();
        let expected = [("a", "1"), ("b", "2"), ("c_d", "3"), ("e", "x y")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn options_of_another_kind_are_refused() {
        for options in ["-d 5", "-c a", "-c"] {
            assert!(split_options(options).is_err(), "{options}");
        }
    }
}
