//! How an answer lies in Redis, where anybody may have changed it.
//!
//! Two keyed digests, both HMAC-SHA256, with keys that HKDF derives from the secret:
//!
//! * one of the question (its whole key and the stamps captured for it): the first half is its name in Redis, the second
//!   half stands in the value, so that a value under another name, or two questions of one name, are told apart;
//! * one of the whole value, its tag. It is looked at before anything that the value says is believed or unpacked.
//!
//! Numbers are little-endian.
//!
//! ```text
//!  0 magic 4 │ version 1 │ flags 1 │ zero 2 │ second half of the question's digest 16
//! 24 rows 8 │ filled at, ms since 1970 8 │ lifetime, ms 4 │ cost, µs 4
//! 48 bytes of row description 4 │ of rows 4 │ of CommandComplete 4 │ of the body as it lies here 4
//! 64 body: the three parts, one behind the other, perhaps compressed (LZ4)
//!    tag 32
//! ```

use bytes::Bytes;
use ring::{hkdf, hmac};

const MAGIC: [u8; 4] = *b"pgwr";
/// Raised whenever the layout changes.
const VERSION: u8 = 1;
const DESCRIBED: u8 = 1;
const COMPRESSED: u8 = 2;
const HEADER_BYTES: usize = 64;
const TAG_BYTES: usize = 32;
const HALF_BYTES: usize = 16;

/// What a value has beside its body.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

/// Shorter bodies are not worth the time to compress them.
const COMPRESSED_FROM_BYTES: usize = 1024;

/// Clocks of two proxies that differ by more than this share nothing.
const CLOCK_DIFFERENCE_MS: u64 = 10 * 60 * 1000;

/// The keys that the secret stands for.
pub struct Secrets {
    question: hmac::Key,
    value: hmac::Key,
}

impl Secrets {
    /// `None` if it cannot be; it always can.
    pub fn derive(secret: &str) -> Option<Self> {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, b"pgweir result cache").extract(secret.as_bytes());
        let key = |purpose: &[u8]| Some(hmac::Key::from(extracted.expand(&[purpose], hmac::HMAC_SHA256).ok()?));
        Some(Self { question: key(b"question")?, value: key(b"value")? })
    }

    /// The digest of a question: `key` is all of it, `stamps` are those captured for it, encoded.
    pub fn question(&self, key: &[u8], stamps: &[u8]) -> Question {
        let mut context = hmac::Context::with_key(&self.question);
        context.update(&(key.len() as u64).to_le_bytes());
        context.update(key);
        context.update(stamps);
        let tag = context.sign();
        let (mut name, mut check) = ([0; HALF_BYTES], [0; HALF_BYTES]);
        let halves = tag.as_ref().split_at_checked(HALF_BYTES).unwrap_or_default();
        name.iter_mut().zip(halves.0).for_each(|(to, from)| *to = *from);
        check.iter_mut().zip(halves.1).for_each(|(to, from)| *to = *from);
        Question { name, check }
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("***")
    }
}

/// What a question is known by outside of this process; nobody can tell from it what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    name: [u8; HALF_BYTES],
    check: [u8; HALF_BYTES],
}

impl Question {
    /// Its key in Redis.
    pub fn redis_key(&self, cluster: &str) -> Vec<u8> {
        let mut key = Vec::with_capacity(cluster.len() + 8 + 2 * HALF_BYTES);
        key.extend_from_slice(b"pgweir:");
        key.extend_from_slice(cluster.as_bytes());
        key.push(b':');
        for byte in self.name {
            for digit in [byte >> 4, byte & 15] {
                key.push(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
            }
        }
        key
    }
}

/// An answer without what belongs to one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The RowDescription message, when the request asks for one.
    pub row_description: Option<Bytes>,
    /// All DataRow messages.
    pub rows: Bytes,
    /// The CommandComplete message.
    pub command_complete: Bytes,
    /// How many rows there are.
    pub row_count: u64,
    /// What it cost the server, in microseconds.
    pub cost_us: u32,
    /// When it was complete, by the wall clock of who asked: a bound for values that somebody puts back.
    pub filled_at_ms: u64,
    /// For how long it was meant to lie there.
    pub lifetime_ms: u32,
}

/// Why a value is not one of ours, or not the one that was asked for: the `reason` of the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is too short to be one, or another program's, or another version's.
    Format,
    /// Its tag is wrong: whoever made it has another secret, or something in it was changed.
    Forged,
    /// It answers another question.
    Swapped,
    /// Its parts are not as long as it says, or do not unpack.
    Length,
    /// It is longer than answers may be here.
    TooLarge,
    /// Nothing that was stored so long ago is there any more, or the clocks of two proxies differ by minutes.
    TooOld,
    /// It was to lie there for a time and has none, or a longer one.
    Lifetime,
}

impl Refusal {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Format, Self::Forged, Self::Swapped, Self::Length, Self::TooLarge, Self::TooOld, Self::Lifetime];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Forged => "forged",
            Self::Swapped => "swapped",
            Self::Length => "length",
            Self::TooLarge => "too_large",
            Self::TooOld => "too_old",
            Self::Lifetime => "lifetime",
        }
    }
}

/// The value as it is put into Redis; `None` if it is longer than lengths can say.
pub fn encode(secrets: &Secrets, question: &Question, value: &Value) -> Option<Vec<u8>> {
    let description = value.row_description.as_deref().unwrap_or_default();
    let plain = [description, &value.rows, &value.command_complete].concat();
    let compressed = (plain.len() >= COMPRESSED_FROM_BYTES).then(|| lz4_flex::block::compress(&plain));
    // An eighth is the least that pays for unpacking.
    let compressed = compressed.filter(|bytes| bytes.len() <= plain.len() - plain.len() / 8);
    let mut flags = if value.row_description.is_some() { DESCRIBED } else { 0 };
    flags |= if compressed.is_some() { COMPRESSED } else { 0 };
    let body = compressed.as_deref().unwrap_or(&plain);
    let mut bytes = Vec::with_capacity(body.len() + OVERHEAD_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[VERSION, flags, 0, 0]);
    bytes.extend_from_slice(&question.check);
    bytes.extend_from_slice(&value.row_count.to_le_bytes());
    bytes.extend_from_slice(&value.filled_at_ms.to_le_bytes());
    bytes.extend_from_slice(&value.lifetime_ms.to_le_bytes());
    bytes.extend_from_slice(&value.cost_us.to_le_bytes());
    for part in [description.len(), value.rows.len(), value.command_complete.len(), body.len()] {
        bytes.extend_from_slice(&u32::try_from(part).ok()?.to_le_bytes());
    }
    bytes.extend_from_slice(body);
    let tag = hmac::sign(&secrets.value, &bytes);
    bytes.extend_from_slice(tag.as_ref());
    Some(bytes)
}

/// What was found under the name of a question, if it is an answer to it that was made by somebody who knows the secret.
/// `now_ms` is the wall clock; answers longer than `max_bytes` are not unpacked.
pub fn decode(
    secrets: &Secrets,
    question: &Question,
    bytes: Vec<u8>,
    max_bytes: usize,
    now_ms: u64,
) -> Result<Value, Refusal> {
    let signed = bytes.len().checked_sub(TAG_BYTES).filter(|signed| *signed >= HEADER_BYTES).ok_or(Refusal::Format)?;
    let (content, tag) = bytes.split_at_checked(signed).ok_or(Refusal::Format)?;
    if !content.starts_with(&MAGIC) || content.get(4) != Some(&VERSION) {
        return Err(Refusal::Format);
    }
    hmac::verify(&secrets.value, content, tag).map_err(|_| Refusal::Forged)?;
    // From here on it is what one of us has written.
    let mut header = Header(content);
    let flags = header.take::<8>().ok_or(Refusal::Format)?[5];
    if header.take::<HALF_BYTES>().ok_or(Refusal::Format)? != question.check {
        return Err(Refusal::Swapped);
    }
    let row_count = u64::from_le_bytes(header.take().ok_or(Refusal::Format)?);
    let filled_at_ms = u64::from_le_bytes(header.take().ok_or(Refusal::Format)?);
    let lifetime_ms = header.number().ok_or(Refusal::Format)?;
    let cost_us = header.number().ok_or(Refusal::Format)?;
    if now_ms.abs_diff(filled_at_ms) > u64::from(lifetime_ms) + CLOCK_DIFFERENCE_MS {
        return Err(Refusal::TooOld);
    }
    let mut length = || header.number().map(|length| length as usize).ok_or(Refusal::Format);
    let (description, rows, complete, stored) = (length()?, length()?, length()?, length()?);
    let total = description.saturating_add(rows).saturating_add(complete);
    if total > max_bytes {
        return Err(Refusal::TooLarge);
    }
    if stored != signed - HEADER_BYTES {
        return Err(Refusal::Length);
    }
    let body = if flags & COMPRESSED == 0 {
        Bytes::from(bytes).slice(HEADER_BYTES..signed)
    } else {
        let packed = content.get(HEADER_BYTES..).unwrap_or_default();
        Bytes::from(lz4_flex::block::decompress(packed, total).map_err(|_| Refusal::Length)?)
    };
    if body.len() != total {
        return Err(Refusal::Length);
    }
    Ok(Value {
        row_description: (flags & DESCRIBED != 0).then(|| body.slice(..description)),
        rows: body.slice(description..description + rows),
        command_complete: body.slice(description + rows..),
        row_count,
        cost_us,
        filled_at_ms,
        lifetime_ms,
    })
}

/// Reads one field after the other.
struct Header<'a>(&'a [u8]);

impl Header<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
}

#[cfg(test)]
mod tests;
