//! Where `currval()` and `lastval()` of a session stand.
//!
//! A server remembers per connection what `nextval()` gave last. Nobody can carry that to another connection, and to
//! keep a client on its server after every INSERT would be to pool nothing. So clients are kept there only where
//! somebody asks such questions, and a question that comes before that is known is answered by the server that has the
//! values, if nobody has used it since, or by none: never with a neighbour's.
//! <https://www.postgresql.org/docs/current/functions-sequence.html>

/// Server connections on which a session may have called `nextval()`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sequences {
    /// None.
    #[default]
    Untouched,
    /// This one.
    On(u64),
    /// Several: no server knows all the values.
    Scattered,
}

impl Sequences {
    /// In place of a client: several have called `nextval()` on a server.
    pub const OF_SEVERAL: u64 = u64::MAX;

    /// It may have called `nextval()` on this server.
    #[must_use]
    pub fn advanced_on(self, server: u64) -> Self {
        match self {
            Self::Untouched => Self::On(server),
            Self::On(other) if other == server => self,
            Self::On(_) | Self::Scattered => Self::Scattered,
        }
    }

    /// The server that knows all of it.
    #[must_use]
    pub fn server(self) -> Option<u64> {
        match self {
            Self::On(server) => Some(server),
            Self::Untouched | Self::Scattered => None,
        }
    }

    /// Has a server to forget its values before this session, of client `own`, may ask for them? `user` is the client
    /// that may have called `nextval()` there last; 0: none has.
    #[must_use]
    pub fn are_foreign(self, server: u64, user: u64, own: u64) -> bool {
        user != 0 && !(user == own && self == Self::On(server))
    }
}

#[cfg(test)]
mod tests {
    use super::Sequences::{self, On, Scattered, Untouched};

    #[test]
    fn values_on_two_servers_are_whole_on_none() {
        for (servers, expected) in
            [(&[][..], Untouched), (&[1], On(1)), (&[1, 1], On(1)), (&[1, 2], Scattered), (&[1, 2, 2], Scattered)]
        {
            let found = servers.iter().fold(Sequences::default(), |sequences, server| sequences.advanced_on(*server));
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_server_forgets_whatever_is_not_all_of_the_sessions_own() {
        let own = 7;
        for (sequences, user, expected) in [
            (Untouched, 0, false),
            (Untouched, 8, true),
            // An older turn of its own.
            (Untouched, own, true),
            (On(1), own, false),
            (On(1), 8, true),
            (On(2), own, true),
            (Scattered, own, true),
        ] {
            assert_eq!(sequences.are_foreign(1, user, own), expected, "{sequences:?} {user}");
        }
    }
}
