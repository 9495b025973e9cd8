//! The key of a cached answer: everything its bytes depend on, except what the stamps cover.
//!
//! The encoding is injective: every part of variable length follows its own length, so no choice of
//! contents can make two questions look alike, and the whole key is compared on a hit.

use std::{borrow::Borrow, sync::Arc};

use crate::ablation::Ablation;

/// Raised whenever the encoding changes.
const FORMAT_VERSION: u8 = 1;
/// Reported by PostgreSQL, but no answer depends on it.
const IGNORED_PARAMETER: &str = "application_name";

/// The user of an answer that everybody gets who asks this key: no role has that name.
pub const ANYBODY: &str = "";

const SIMPLE: u8 = 0;
const EXTENDED: u8 = 1;
const EXTENDED_DESCRIBED: u8 = 2;

/// What the session contributes, encoded once and again when a parameter changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPrefix(Arc<[u8]>);

impl KeyPrefix {
    /// `cluster` tells apart servers whose databases may have the same oid. `user` is [`ANYBODY`] for an answer that hangs on
    /// nobody's rights. `parameters` are all that the session may have set, in any order and case of names.
    pub fn new<'a>(
        cluster: &str,
        database: u32,
        user: &str,
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let mut parameters: Vec<_> = parameters
            .into_iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .filter(|(name, _)| name != IGNORED_PARAMETER && !is_left_out(name))
            .collect();
        parameters.sort_unstable();
        let mut bytes = vec![FORMAT_VERSION];
        push_bytes(&mut bytes, cluster.as_bytes());
        bytes.extend_from_slice(&database.to_le_bytes());
        push_bytes(&mut bytes, if Ablation::Role.is_left_out() { b"" } else { user.as_bytes() });
        push_count(&mut bytes, parameters.len());
        for (name, value) in &parameters {
            push_bytes(&mut bytes, name.as_bytes());
            push_bytes(&mut bytes, value.as_bytes());
        }
        Self(bytes.into())
    }
}

fn is_left_out(parameter: &str) -> bool {
    match parameter {
        "role" | "session_authorization" | "is_superuser" => Ablation::Role.is_left_out(),
        _ => Ablation::Parameters.is_left_out(),
    }
}

/// A Bind message whose lengths lie; the server will say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed bind message")]
pub struct MalformedBind;

/// Builds one key after the other in the same memory.
#[derive(Debug, Default)]
pub struct KeyBuffer(Vec<u8>);

impl KeyBuffer {
    /// The key of a Query message; `text` without its terminator.
    pub fn simple(&mut self, prefix: &KeyPrefix, text: &[u8]) -> &[u8] {
        self.begin(prefix, SIMPLE, text);
        &self.0
    }

    /// The key of a Bind of that statement, followed by one Execute without a row limit.
    ///
    /// `types` are the parameter types that Parse declared, `bind` is the body of the Bind message
    /// behind its two names, `described` says whether a row description is asked for in between.
    pub fn extended(
        &mut self,
        prefix: &KeyPrefix,
        text: &[u8],
        types: &[u32],
        bind: &[u8],
        described: bool,
    ) -> Result<&[u8], MalformedBind> {
        self.begin(prefix, if described { EXTENDED_DESCRIBED } else { EXTENDED }, text);
        push_count(&mut self.0, types.len());
        for oid in types {
            self.0.extend_from_slice(&oid.to_le_bytes());
        }
        self.push_bind(bind).ok_or(MalformedBind)?;
        Ok(&self.0)
    }

    /// The key built last.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn begin(&mut self, prefix: &KeyPrefix, shape: u8, text: &[u8]) {
        self.0.clear();
        self.0.extend_from_slice(&prefix.0);
        self.0.push(shape);
        push_bytes(&mut self.0, text);
    }

    /// A format per parameter, however the message abbreviates them; result formats as they are,
    /// because the number of columns is not known here.
    fn push_bind(&mut self, bind: &[u8]) -> Option<()> {
        let (formats, rest) = split_formats(bind)?;
        let (count, mut rest) = split_u16(rest)?;
        if formats.len() > 1 && formats.len() != usize::from(count) {
            return None;
        }
        push_count(&mut self.0, usize::from(count));
        let only = formats.first().copied().unwrap_or_default();
        for at in 0..usize::from(count) {
            self.0.extend_from_slice(formats.get(at).unwrap_or(&only));
            rest = self.push_parameter(rest)?;
        }
        let (formats, rest) = split_formats(rest)?;
        let all_text = formats == [[0, 0]];
        push_count(&mut self.0, if all_text { 0 } else { formats.len() });
        self.0.extend_from_slice(if all_text { &[] } else { formats.as_flattened() });
        rest.is_empty().then_some(())
    }

    fn push_parameter<'a>(&mut self, bind: &'a [u8]) -> Option<&'a [u8]> {
        let (length, rest) = bind.split_first_chunk::<4>()?;
        self.0.extend_from_slice(length);
        let (value, rest) = match i32::from_be_bytes(*length) {
            -1 => (&[][..], rest),
            length => rest.split_at_checked(usize::try_from(length).ok()?)?,
        };
        self.0.extend_from_slice(value);
        Some(rest)
    }
}

/// A key that is kept, once for all who keep it; looked up by the bytes alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// All of it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes it takes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never, for a key that was built here.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&[u8]> for Key {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

fn push_count(bytes: &mut Vec<u8>, count: usize) {
    bytes.extend_from_slice(&(count as u64).to_le_bytes());
}

fn push_bytes(bytes: &mut Vec<u8>, part: &[u8]) {
    push_count(bytes, part.len());
    bytes.extend_from_slice(part);
}

fn split_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*number), rest))
}

/// A list of format codes, as they are on the wire.
fn split_formats(bytes: &[u8]) -> Option<(&[[u8; 2]], &[u8])> {
    let (count, rest) = split_u16(bytes)?;
    let (list, rest) = rest.split_at_checked(usize::from(count) * 2)?;
    let (formats, _) = list.as_chunks::<2>();
    Some((formats, rest))
}

#[cfg(test)]
mod tests;
