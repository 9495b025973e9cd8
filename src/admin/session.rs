//! One console connection after login, message by message, in the simple and the extended
//! protocol. Names of statements and portals live here; the socket is the caller's.

mod fields;

use std::{collections::HashMap, sync::Arc};

use bytes::BytesMut;
use pgwire::{
    error::PgWireResult,
    messages::{
        Message,
        data::ParameterDescription,
        extendedquery::{BindComplete, CloseComplete, ParseComplete},
        response::{ReadyForQuery, TransactionStatus},
    },
};
use tokio::sync::Notify;

use self::fields::Fields;
use super::{
    Console, ConsoleError, Outcome, Privilege, command,
    reply::{self, Format},
};

/// Named statements and portals of one connection, each.
const NAMES_LIMIT: usize = 256;

/// What the caller does once `out` is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Read the next message.
    Read,
    /// Keep the connection open without an answer: the process is about to end.
    Hold,
    /// Close the connection.
    Close,
}

/// The state of one connection.
pub struct ConsoleSession {
    console: Console,
    privilege: Privilege,
    cancelled: Arc<Notify>,
    statements: HashMap<String, String>,
    portals: HashMap<String, Portal>,
    /// After an error in a pipeline, until Sync.
    is_skipping: bool,
}

#[derive(Clone, Debug)]
struct Portal {
    text: String,
    formats: Vec<Format>,
}

/// Why a message was not answered as asked.
enum Refusal {
    /// In the session's form; it goes on.
    Error(ConsoleError),
    /// The peer does not speak the protocol.
    Broken,
}

impl From<ConsoleError> for Refusal {
    fn from(error: ConsoleError) -> Self {
        Self::Error(error)
    }
}

impl From<pgwire::error::PgWireError> for Refusal {
    fn from(error: pgwire::error::PgWireError) -> Self {
        Self::Error(ConsoleError::Failed(error.to_string()))
    }
}

type Answered = Result<Next, Refusal>;

impl ConsoleSession {
    /// After login.
    pub fn new(console: Console, privilege: Privilege) -> Self {
        let cancelled = Arc::new(Notify::new());
        Self { console, privilege, cancelled, statements: HashMap::new(), portals: HashMap::new(), is_skipping: false }
    }

    /// To be notified when a cancel request comes while a message is being answered.
    pub fn canceller(&self) -> Arc<Notify> {
        Arc::clone(&self.cancelled)
    }

    /// Answers one message, given without its tag and length.
    pub async fn answer(&mut self, tag: u8, body: &[u8], out: &mut BytesMut) -> Next {
        if self.is_skipping && !matches!(tag, b'S' | b'X') {
            return Next::Read;
        }
        let before = out.len();
        let answered = match tag {
            b'Q' => self.query(body, out).await,
            b'E' => self.execute(body, out).await,
            _ => self.answer_at_once(tag, body, out),
        };
        match answered {
            Ok(next) => next,
            Err(refusal) => {
                out.truncate(before);
                self.refuse(tag, refusal, out)
            }
        }
    }

    fn answer_at_once(&mut self, tag: u8, body: &[u8], out: &mut BytesMut) -> Answered {
        match tag {
            b'P' => self.parse(body, out),
            b'B' => self.bind(body, out),
            b'D' => self.describe(body, out),
            b'C' => self.close(body, out),
            b'H' => Ok(Next::Read),
            b'S' => {
                self.is_skipping = false;
                self.portals.clear();
                ready(out)?;
                Ok(Next::Read)
            }
            b'X' => Ok(Next::Close),
            _ => Err(Refusal::Broken),
        }
    }

    fn refuse(&mut self, tag: u8, refusal: Refusal, out: &mut BytesMut) -> Next {
        let (error, next) = match refusal {
            Refusal::Error(error) => (error, Next::Read),
            Refusal::Broken => {
                let text = format!("unsupported packet type for admin console: {tag}");
                (ConsoleError::Failed(text), Next::Close)
            }
        };
        let is_simple = tag == b'Q';
        self.is_skipping = !is_simple;
        let sent = reply::error(&error, out);
        let ended = if is_simple { ready(out) } else { Ok(()) };
        if sent.and(ended).is_ok() { next } else { Next::Close }
    }

    async fn query(&mut self, body: &[u8], out: &mut BytesMut) -> Answered {
        let text = Fields::new(body).text().ok_or(Refusal::Broken)?;
        let outcome = self.console.run(&text, self.privilege, &self.cancelled).await;
        if outcome == Outcome::Silent {
            return Ok(Next::Hold);
        }
        reply::simple(&outcome, out)?;
        ready(out)?;
        Ok(Next::Read)
    }

    fn parse(&mut self, body: &[u8], out: &mut BytesMut) -> Answered {
        let mut fields = Fields::new(body);
        let (name, text) = fields.text().zip(fields.text()).ok_or(Refusal::Broken)?;
        command::parse(&text)?;
        insert(&mut self.statements, name, text)?;
        ParseComplete::new().encode(out)?;
        Ok(Next::Read)
    }

    fn bind(&mut self, body: &[u8], out: &mut BytesMut) -> Answered {
        let bind = fields::Bind::read(body).ok_or(Refusal::Broken)?;
        let text = self.statements.get(&bind.statement).ok_or_else(unknown)?.clone();
        if bind.parameters > 0 {
            return Err(ConsoleError::Failed("console commands have no parameters".into()).into());
        }
        insert(&mut self.portals, bind.portal, Portal { text, formats: bind.formats })?;
        BindComplete::new().encode(out)?;
        Ok(Next::Read)
    }

    fn describe(&self, body: &[u8], out: &mut BytesMut) -> Answered {
        let (kind, name) = fields::kind_and_name(body).ok_or(Refusal::Broken)?;
        let (text, formats) = if kind == b'S' {
            let text = self.statements.get(&name).ok_or_else(unknown)?;
            ParameterDescription::new(Vec::new()).encode(out)?;
            (text, &[][..])
        } else {
            let portal = self.portals.get(&name).ok_or_else(unknown)?;
            (&portal.text, portal.formats.as_slice())
        };
        let columns = self.console.columns(text);
        reply::describe(columns, formats, out)?;
        Ok(Next::Read)
    }

    async fn execute(&mut self, body: &[u8], out: &mut BytesMut) -> Answered {
        let name = Fields::new(body).text().ok_or(Refusal::Broken)?;
        let portal = self.portals.get(&name).ok_or_else(unknown)?;
        match self.console.run(&portal.text, self.privilege, &self.cancelled).await {
            Outcome::Silent => Ok(Next::Hold),
            Outcome::Failed(error) => Err(error.into()),
            outcome => {
                reply::execute(&outcome, &portal.formats, out)?;
                Ok(Next::Read)
            }
        }
    }

    fn close(&mut self, body: &[u8], out: &mut BytesMut) -> Answered {
        let (kind, name) = fields::kind_and_name(body).ok_or(Refusal::Broken)?;
        if kind == b'S' {
            self.statements.remove(&name);
        } else {
            self.portals.remove(&name);
        }
        CloseComplete::new().encode(out)?;
        Ok(Next::Read)
    }
}

fn insert<T>(named: &mut HashMap<String, T>, name: String, value: T) -> Result<(), ConsoleError> {
    if named.len() >= NAMES_LIMIT && !named.contains_key(&name) {
        return Err(ConsoleError::Failed("too many prepared statements".to_owned()));
    }
    named.insert(name, value);
    Ok(())
}

fn unknown() -> Refusal {
    Refusal::Error(ConsoleError::Failed("prepared statement did not exist".to_owned()))
}

fn ready(out: &mut BytesMut) -> PgWireResult<()> {
    ReadyForQuery::new(TransactionStatus::Idle).encode(out)
}

#[cfg(test)]
mod tests;
