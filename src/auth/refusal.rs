//! Why nobody gets in.

/// Why a login ends; what the client is told is [`Refusal::message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Unknown user or wrong password; which of them, nobody is told.
    Password,
    /// The client sent no password.
    EmptyPassword,
    /// As `Password`, by SCRAM.
    Sasl,
    /// The user is not known.
    Trust,
    /// No certificate, or one with another name.
    Certificate,
    /// No unix socket, or another user of the operating system.
    Peer,
    /// A rule says so.
    Rejected,
    /// No rule says anything.
    NoRule,
    /// Not one who may use the console.
    Console,
}

impl Refusal {
    /// PgBouncer's words.
    pub fn message(self) -> &'static str {
        match self {
            Refusal::Password => "password authentication failed",
            Refusal::EmptyPassword => "empty password returned by client",
            Refusal::Sasl => "SASL authentication failed",
            Refusal::Trust => "\"trust\" authentication failed",
            Refusal::Certificate => "certificate authentication failed",
            Refusal::Peer => "unix socket login rejected",
            Refusal::Rejected => "login rejected",
            Refusal::NoRule => "no authentication method is found",
            Refusal::Console => "not allowed",
        }
    }

    /// Whether another password might help.
    pub fn is_about_the_password(self) -> bool {
        matches!(self, Refusal::Password | Refusal::EmptyPassword | Refusal::Sasl)
    }
}
