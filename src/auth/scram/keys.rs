//! The arithmetic of SCRAM.

use std::num::NonZeroU32;

use ring::{digest, pbkdf2};
use subtle::ConstantTimeEq;

/// The size of SHA-256.
pub type Key = [u8; 32];

/// `Hi(password, salt, iterations)`.
pub(super) fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> Key {
    let mut salted = Key::default();
    let iterations = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password, &mut salted);
    salted
}

pub(super) fn hmac(key: &[u8], text: &[u8]) -> Key {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    whole(ring::hmac::sign(&key, text).as_ref())
}

pub(super) fn hash(text: &[u8]) -> Key {
    whole(digest::digest(&digest::SHA256, text).as_ref())
}

/// SHA-256 gives 32 bytes.
fn whole(bytes: &[u8]) -> Key {
    bytes.try_into().unwrap_or_default()
}

pub(super) fn xor(one: &Key, other: &Key) -> Key {
    let mut mixed = *one;
    for (byte, other) in mixed.iter_mut().zip(other) {
        *byte ^= other;
    }
    mixed
}

/// Takes the same time wherever they differ.
pub(super) fn equal(one: &Key, other: &Key) -> bool {
    one.ct_eq(other).into()
}
