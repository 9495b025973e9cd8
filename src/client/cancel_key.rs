//! Cancel keys of our own, and which process such a key belongs to. Pure: random numbers are arguments.

/// Last two bits of a key: how often a request with it may still be passed on.
const HOPS: u64 = 0b11;
/// Second and third byte, low one first: the peer that has issued it.
const PEER: [u32; 2] = [48, 40];

/// What a client cancels its queries with; the server's own key would tell it how to cancel other clients. PgBouncer's
/// layout: eight bytes, the first bit clear. With peers, bytes 1 and 2 are the peer's id and the last two bits the hops
/// that are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct OwnKey(u64);

/// What to do with a cancel request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// One of our clients has this key.
    Here(OwnKey),
    /// Another process has issued it: pass the request on with this one.
    Peer(u16, OwnKey),
    /// It has been passed on often enough.
    NoHopsLeft,
}

impl OwnKey {
    /// A key of this process, whose `peer_id` is 0 where there are no peers.
    pub(super) fn new(random: u64, peer_id: u16) -> Self {
        let key = random & !(1 << 63);
        if peer_id == 0 {
            return Self(key);
        }
        let [low, high] = peer_id.to_le_bytes().map(u64::from);
        let cleared = PEER.iter().fold(key, |key, shift| key & !(0xff << shift));
        Self(cleared | low << PEER[0] | high << PEER[1] | HOPS)
    }

    /// The key of a cancel request; `None` if it has another length than ours.
    pub(super) fn from_request(pid: u32, secret: &[u8]) -> Option<Self> {
        let secret = u32::from_be_bytes(secret.try_into().ok()?);
        Some(Self(u64::from(pid) << 32 | u64::from(secret)))
    }

    /// Whose it is.
    pub(super) fn destination(self, peer_id: u16) -> Destination {
        if peer_id == 0 {
            return Destination::Here(self);
        }
        let [low, high] = PEER.map(|shift| (self.0 >> shift) as u8);
        let issuer = u16::from_le_bytes([low, high]);
        match self.0 & HOPS {
            _ if issuer == peer_id => Destination::Here(Self(self.0 | HOPS)),
            0 => Destination::NoHopsLeft,
            _ => Destination::Peer(issuer, Self(self.0 - 1)),
        }
    }

    /// The first half: in BackendKeyData, where PostgreSQL has a process id.
    pub(super) fn pid(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The second half.
    pub(super) fn secret(self) -> u32 {
        self.0 as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(key: OwnKey) -> [u8; 8] {
        key.0.to_be_bytes()
    }

    #[test]
    fn without_peers_all_but_the_first_bit_is_random() {
        assert_eq!(bytes(OwnKey::new(u64::MAX, 0)), [0x7f, 255, 255, 255, 255, 255, 255, 255]);
        assert_eq!(bytes(OwnKey::new(0, 0)), [0; 8]);
    }

    #[test]
    fn with_peers_the_key_says_who_has_issued_it_as_pgbouncers_does() {
        assert_eq!(bytes(OwnKey::new(u64::MAX, 0x1234)), [0x7f, 0x34, 0x12, 255, 255, 255, 255, 255]);
        assert_eq!(bytes(OwnKey::new(0, 1)), [0, 1, 0, 0, 0, 0, 0, 3]);
    }

    #[test]
    fn a_request_is_passed_on_three_times_and_then_dropped() {
        let issued = OwnKey::new(0x0123_4567_89ab_cdef, 2);
        let mut key = issued;
        for hops_left in [2, 1, 0] {
            let Destination::Peer(2, passed_on) = key.destination(1) else { panic!("{key:?}") };
            assert_eq!(bytes(passed_on)[7] & 3, hops_left);
            assert_eq!(passed_on.destination(2), Destination::Here(issued));
            key = passed_on;
        }
        assert_eq!(key.destination(1), Destination::NoHopsLeft);
    }

    #[test]
    fn without_a_peer_id_every_request_is_for_this_process() {
        let key = OwnKey::new(7, 3);
        assert_eq!(key.destination(0), Destination::Here(key));
    }

    #[test]
    fn a_request_has_the_halves_of_the_key() {
        let key = OwnKey::new(0x0123_4567_89ab_cdef, 0);
        assert_eq!(OwnKey::from_request(key.pid(), &key.secret().to_be_bytes()), Some(key));
        assert_eq!(OwnKey::from_request(1, b"too long"), None);
    }
}
