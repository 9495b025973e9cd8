//! One moment of the whole system; small and `Copy`, because there are many of them.

pub(crate) const WRITES: usize = 2;
pub(crate) const PROXIES: usize = 2;
/// A mark and an end of each write at most.
const CHANNEL: usize = 2 * WRITES;

/// One bit per write.
pub(crate) type WriteSet = u8;

pub(crate) fn bit(write: usize) -> WriteSet {
    1 << write
}

/// How far a write has come. The server moves it to `Visible` or `Aborted`, its proxy the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    #[default]
    Idle,
    /// Its commit is on its way to the server.
    Sent,
    /// In the log, and invisible still.
    Logged,
    Visible,
    Aborted,
    /// The first and the second half of what its proxy does when it hears of the commit.
    HalfSettled,
    Settled,
    /// Its client was told, and the bump is still to come: only when the rules are broken.
    ToldEarly,
    Done,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Write {
    pub(crate) phase: Phase,
    /// The connection is lost: nobody will be told.
    pub(crate) is_lost: bool,
    /// Peers that have not acknowledged yet, one bit each.
    pub(crate) awaited: u8,
}

/// How far a replica must have replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Watermark {
    #[default]
    Nothing,
    /// Written, and the primary was not sampled since.
    Unknown,
    At(u8),
}

/// An answer, as the set of writes it shows, with the stamp captured for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Answer {
    pub(crate) shows: WriteSet,
    pub(crate) stamp: WriteSet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fill {
    pub(crate) stamp: WriteSet,
    pub(crate) watermark: Watermark,
    /// What the server answered.
    pub(crate) shows: Option<WriteSet>,
    /// What a reader that waits for this fill must be shown.
    pub(crate) owed_to_joined: Option<WriteSet>,
}

/// A lookup between its two loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Hit {
    pub(crate) answer: Answer,
    pub(crate) owed: WriteSet,
    pub(crate) has_passed_first: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Proxy {
    pub(crate) stamp: WriteSet,
    pub(crate) in_flight: WriteSet,
    pub(crate) watermark: Watermark,
    pub(crate) cached: Option<Answer>,
    pub(crate) fill: Option<Fill>,
    pub(crate) hit: Option<Hit>,
    /// Nobody waits for it.
    pub(crate) has_lapsed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Message {
    Mark(usize),
    Committed(usize),
    RolledBack(usize),
}

/// First in, first out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Channel([Option<Message>; CHANNEL]);

impl Channel {
    pub(crate) fn send(&mut self, message: Message) {
        *self.0.iter_mut().find(|slot| slot.is_none()).unwrap() = Some(message);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0[0].is_none()
    }

    pub(crate) fn receive(&mut self) -> Option<Message> {
        let first = self.0[0].take();
        self.0.rotate_left(1);
        first
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) writes: [Write; WRITES],
    pub(crate) visible: WriteSet,
    pub(crate) told: WriteSet,
    log: [u8; WRITES],
    logged: u8,
    pub(crate) replayed: u8,
    pub(crate) proxies: [Proxy; PROXIES],
    /// What the proxy of each write has for the other proxy.
    pub(crate) channels: [Channel; PROXIES],
    /// Every answer that was ever stored, one bit each.
    shared: u16,
    /// Writes that passed by and that the proxies have dealt with.
    pub(crate) heard: WriteSet,
}

impl State {
    pub(crate) fn share(&mut self, answer: Answer) {
        self.shared |= 1 << (answer.shows << WRITES | answer.stamp);
    }

    /// What the shared cache may give.
    pub(crate) fn shared(&self) -> impl Iterator<Item = Answer> {
        let shared = self.shared;
        (0..16).filter(move |bit| shared & 1 << bit != 0).map(|bit| Answer { shows: bit >> WRITES, stamp: bit & 3 })
    }

    pub(crate) fn append(&mut self, write: usize) {
        self.log[usize::from(self.logged)] = bit(write);
        self.logged += 1;
    }

    pub(crate) fn log_end(&self) -> u8 {
        self.logged
    }

    /// What the replica shows.
    pub(crate) fn on_replica(&self) -> WriteSet {
        self.log[..usize::from(self.replayed)].iter().fold(0, |shows, write| shows | write)
    }
}
