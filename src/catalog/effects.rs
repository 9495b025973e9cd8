//! What a statement leaves behind in its session.

use std::fmt;

/// A set of effects on the session that ran a statement.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Effects(u16);

impl Effects {
    /// The session listens for notifications.
    pub const LISTEN: Self = Self(1);
    /// It owns temporary objects.
    pub const TEMP: Self = Self(1 << 1);
    /// It holds session-level advisory locks.
    pub const ADVISORY_LOCK: Self = Self(1 << 2);
    /// It holds statements prepared with PREPARE.
    pub const SQL_PREPARE: Self = Self(1 << 3);
    /// A setting beyond the reported six was changed for the session, or its role.
    pub const SET_PARAMETER: Self = Self(1 << 4);
    /// It holds a cursor beyond the transaction.
    pub const HOLD_CURSOR: Self = Self(1 << 5);
    /// A library was loaded.
    pub const LOAD: Self = Self(1 << 6);
    /// Code that the proxy cannot see into ran: any of these may have happened.
    pub const OPAQUE: Self = Self(1 << 7);
    /// `currval` or `lastval` was read: they hang on an earlier `nextval` of the same session.
    pub const SEQUENCE_STATE: Self = Self(1 << 8);
    /// Something was given back, so an earlier effect may be over.
    pub const RELEASE: Self = Self(1 << 9);
    /// A setting was changed until the end of the transaction: the rest of it is not cached.
    pub const LOCAL_SETTING: Self = Self(1 << 10);
    /// The search path, the role or the triggers were changed until the end of the transaction: names mean
    /// something else in the rest of it (`Snapshot::meaning_anywhere`).
    pub const LOCAL_NAMES: Self = Self(1 << 11);

    /// A setting went back to its default, which for the server is what the server began with.
    pub const RESET: Self = Self(1 << 12);

    /// `nextval` or `setval` was called by name.
    pub const NEXTVAL: Self = Self(1 << 13);

    /// What follows in the same transaction or session may mean other objects by the same names.
    pub const OTHER_NAMES: Self = Self(Self::TEMP.0 | Self::SET_PARAMETER.0 | Self::OPAQUE.0 | Self::LOCAL_NAMES.0);

    /// The same for what follows in one request: a RESET brings names back that the session had changed before it.
    pub const NEW_NAMES: Self = Self(Self::OTHER_NAMES.0 | Self::RESET.0);

    const LABELS: &[(Self, &str)] = &[
        (Self::LISTEN, "listen"),
        (Self::TEMP, "temp"),
        (Self::ADVISORY_LOCK, "advisory_lock"),
        (Self::SQL_PREPARE, "sql_prepare"),
        (Self::SET_PARAMETER, "set_parameter"),
        (Self::HOLD_CURSOR, "hold_cursor"),
        (Self::LOAD, "load"),
        (Self::OPAQUE, "opaque"),
        (Self::SEQUENCE_STATE, "sequence_state"),
        (Self::RELEASE, "release"),
        (Self::LOCAL_SETTING, "local_setting"),
        (Self::LOCAL_NAMES, "local_names"),
        (Self::RESET, "reset"),
        (Self::NEXTVAL, "nextval"),
    ];

    /// True if all of `other` are in this set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True if one of `other` is in this set.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// May there be a temporary object behind any name that follows?
    pub fn may_shadow(self) -> bool {
        self.intersects(Self(Self::TEMP.0 | Self::OPAQUE.0))
    }

    /// Adds `other`.
    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Both together.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Takes `other` away.
    pub fn remove(&mut self, other: Self) {
        self.0 &= !other.0;
    }

    /// True if there is no effect.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each effect of the set.
    pub fn iter(self) -> impl Iterator<Item = Self> {
        Self::LABELS.iter().map(|(effect, _)| *effect).filter(move |effect| self.contains(*effect))
    }

    /// The name of a single effect, for metrics and the console.
    pub fn label(self) -> &'static str {
        Self::LABELS.iter().find(|(effect, _)| *effect == self).map_or("several", |(_, label)| label)
    }
}

impl std::ops::BitOr for Effects {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Self::label)).finish()
    }
}
