//! A client that sends exact bytes and reads whole messages, each within a deadline.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use postgres_protocol::authentication::{
    md5_hash,
    sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256},
};

use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::CertificateDer};

use super::frames::{self, Frame};

/// How long a peer may be silent.
const DEADLINE: Duration = Duration::from_secs(60);

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Address {
    /// A TCP port of this machine.
    Tcp(u16),
    /// A unix socket.
    Unix(PathBuf),
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Stream {
    fn open(address: &Address) -> io::Result<Self> {
        let stream = match address {
            Address::Tcp(port) => {
                let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, *port)))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(DEADLINE))?;
                stream.set_write_timeout(Some(DEADLINE))?;
                Self::Tcp(stream)
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(DEADLINE))?;
                stream.set_write_timeout(Some(DEADLINE))?;
                Self::Unix(stream)
            }
        };
        Ok(stream)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
            Self::Tls(stream) => {
                stream.write_all(bytes)?;
                stream.flush()
            }
        }
    }

    fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
            Self::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
            Self::Tls(stream) => stream.sock.shutdown(how),
        }
    }

    fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_write_timeout(Some(timeout)),
            Self::Unix(stream) => stream.set_write_timeout(Some(timeout)),
            Self::Tls(stream) => stream.sock.set_write_timeout(Some(timeout)),
        }
    }

    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
            Self::Unix(stream) => stream.set_read_timeout(Some(timeout)),
            Self::Tls(stream) => stream.sock.set_read_timeout(Some(timeout)),
        }
    }
}

/// A connection to a server or to the proxy; dropping it closes the socket without a word.
pub struct RawClient {
    stream: BufReader<Stream>,
    address: Address,
    /// BackendKeyData as it came.
    pub key: Vec<u8>,
    /// What ParameterStatus said last, in the order of arrival.
    pub parameters: Vec<(String, String)>,
}

impl RawClient {
    /// Connects and says nothing yet.
    pub fn try_connect(address: &Address) -> io::Result<Self> {
        let stream = BufReader::with_capacity(64 * 1024, Stream::open(address)?);
        Ok(Self { stream, address: address.clone(), key: Vec::new(), parameters: Vec::new() })
    }

    /// Connects and says nothing yet.
    #[track_caller]
    pub fn connect(address: &Address) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("{address:?}: {error}"))
    }

    /// An encrypted connection to localhost: `config` says whom it trusts and what it asks for.
    pub fn try_encrypt(mut self, config: &Arc<ClientConfig>) -> io::Result<Self> {
        self.send(&frames::ssl_request());
        let mut answer = [0];
        self.read_exact(&mut answer)?;
        assert_eq!(answer, *b"S");
        self.try_encrypt_at_once(config)
    }

    /// As [`Self::try_encrypt`], without asking first.
    pub fn try_encrypt_at_once(self, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let Stream::Tcp(mut socket) = self.stream.into_inner() else { panic!("TLS is for TCP") };
        let name = "localhost".try_into().unwrap();
        let mut session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        let stream = Stream::Tls(Box::new(StreamOwned::new(session, socket)));
        Ok(Self { stream: BufReader::new(stream), ..self })
    }

    /// What the peer of an encrypted connection has shown.
    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        match self.stream.get_ref() {
            Stream::Tls(stream) => stream.conn.peer_certificates()?.first().map(|shown| shown.clone().into_owned()),
            Stream::Tcp(_) | Stream::Unix(_) => None,
        }
    }

    /// A session of a user who needs no password.
    #[track_caller]
    pub fn session(address: &Address, user: &str, database: &str) -> Self {
        let mut client = Self::connect(address);
        client
            .log_in(&[("user", user), ("database", database)], "")
            .unwrap_or_else(|error| panic!("login of {user} to {database} at {address:?}: {error:?}"));
        client
    }

    /// Plays the login with whatever method the server asks for. `Err` is the server's error.
    pub fn log_in(&mut self, parameters: &[(&str, &str)], password: &str) -> Result<(), Frame> {
        let user = parameters.iter().find(|(name, _)| *name == "user").map_or("", |(_, user)| user);
        self.send(&frames::startup(parameters));
        let mut scram = None;
        loop {
            let frame = self.frame();
            match frame.tag {
                b'R' => self.authenticate(&frame, user, password, &mut scram),
                b'K' => self.key = frame.body,
                b'S' => self.remember(&frame),
                b'N' | b'v' => {}
                b'Z' => return Ok(()),
                b'E' => return Err(frame),
                _ => panic!("unexpected during login: {frame:?}"),
            }
        }
    }

    fn authenticate(&mut self, frame: &Frame, user: &str, password: &str, scram: &mut Option<ScramSha256>) {
        let (method, rest) = frame.body.split_at(4);
        match u32::from_be_bytes(method.try_into().unwrap()) {
            0 => {}
            3 => self.send_password(password),
            5 => {
                let salt = rest.try_into().unwrap();
                self.send_password(&md5_hash(user.as_bytes(), password.as_bytes(), salt));
            }
            10 => {
                let exchange = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                let mut body = SCRAM_SHA_256.as_bytes().to_vec();
                body.push(0);
                body.extend(u32::try_from(exchange.message().len()).unwrap().to_be_bytes());
                body.extend(exchange.message());
                self.send(&frames::message(b'p', &body));
                *scram = Some(exchange);
            }
            11 => {
                let exchange = scram.as_mut().unwrap();
                exchange.update(rest).unwrap();
                let answer = exchange.message().to_vec();
                self.send(&frames::message(b'p', &answer));
            }
            12 => scram.as_mut().unwrap().finish(rest).expect("the server's proof is wrong"),
            method => panic!("authentication method {method}"),
        }
    }

    fn send_password(&mut self, password: &str) {
        let mut body = password.as_bytes().to_vec();
        body.push(0);
        self.send(&frames::message(b'p', &body));
    }

    fn remember(&mut self, frame: &Frame) {
        let mut parts = frame.body.split(|byte| *byte == 0);
        let mut next = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        let (name, value) = (next(), next());
        self.parameters.retain(|(known, _)| *known != name);
        self.parameters.push((name, value));
    }

    /// What the server reports for a parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Where this connection goes to.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Writes exactly these bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap_or_else(|error| panic!("send: {error}"));
    }

    /// Writes exactly these bytes, unless the peer has gone.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// No more bytes come from here; the other direction stays open.
    pub fn finish_sending(&self) {
        drop(self.stream.get_ref().shutdown(Shutdown::Write));
    }

    /// How long the next reads may take.
    pub fn patience(&self, timeout: Duration) {
        self.stream.get_ref().set_read_timeout(timeout).unwrap();
    }

    /// How long the next writes may take.
    pub fn write_patience(&self, timeout: Duration) {
        self.stream.get_ref().set_write_timeout(timeout).unwrap();
    }

    /// Everything that comes, message or not, until the peer closes.
    pub fn read_to_end(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        self.stream.read_to_end(bytes)
    }

    /// Everything until a message of this type, or until the peer closes the connection.
    pub fn until_closed_or(&mut self, tag: u8) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Ok(Some(frame)) = self.try_frame() {
            let is_last = frame.tag == tag;
            frames.push(frame);
            if is_last {
                break;
            }
        }
        frames
    }

    /// Exactly so many bytes.
    pub fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.stream.read_exact(buffer)
    }

    /// The next message.
    #[track_caller]
    pub fn frame(&mut self) -> Frame {
        match self.try_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => panic!("the peer closed the connection"),
            Err(error) => panic!("no message: {error}"),
        }
    }

    /// The next message; `None` when the peer closed or reset the connection.
    pub fn try_frame(&mut self) -> io::Result<Option<Frame>> {
        let mut header = [0; 5];
        match self.stream.read_exact(&mut header) {
            Err(error) if is_the_end(&error) => return Ok(None),
            other => other?,
        }
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let mut body = vec![0; length.checked_sub(4).expect("a length below 4") as usize];
        match self.stream.read_exact(&mut body) {
            Err(error) if is_the_end(&error) => return Ok(None),
            other => other?,
        }
        let frame = Frame { tag: header[0], body };
        if frame.tag == b'S' {
            self.remember(&frame);
        }
        Ok(Some(frame))
    }

    /// All messages up to and including the next of this type.
    #[track_caller]
    pub fn until(&mut self, tag: u8) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            match self.try_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => panic!("closed before {:?}, after {frames:?}", char::from(tag)),
                Err(error) => panic!("no {:?} after {frames:?}: {error}", char::from(tag)),
            }
            if frames.last().is_some_and(|frame| frame.tag == tag) {
                return frames;
            }
        }
    }

    /// Everything until the peer closes the connection.
    #[track_caller]
    pub fn until_closed(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            match self.try_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return frames,
                Err(error) => panic!("not closed after {frames:?}: {error}"),
            }
        }
    }

    /// Whether nothing at all comes for this long.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        self.patience(time);
        let outcome = self.stream.fill_buf().map(<[u8]>::len);
        self.patience(DEADLINE);
        outcome.is_err()
    }

    /// Sends these messages and collects the answer up to the next ReadyForQuery.
    #[track_caller]
    pub fn exchange(&mut self, bytes: &[u8]) -> Reply {
        self.send(bytes);
        self.reply()
    }

    /// The answer up to the next ReadyForQuery.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        Reply { frames: self.until(b'Z') }
    }

    /// One simple query.
    #[track_caller]
    pub fn query(&mut self, sql: &str) -> Reply {
        self.exchange(&frames::query(sql))
    }

    /// One simple query that must succeed; its rows.
    #[track_caller]
    pub fn rows(&mut self, sql: &str) -> Vec<Vec<String>> {
        let reply = self.query(sql);
        assert!(reply.error().is_none(), "{sql}: {reply:?}");
        reply.rows()
    }

    /// The first value of a simple query that must succeed.
    #[track_caller]
    pub fn value(&mut self, sql: &str) -> String {
        let rows = self.rows(sql);
        rows.first().and_then(|row| row.first()).unwrap_or_else(|| panic!("{sql}: no row")).clone()
    }

    /// One statement of the extended protocol, unnamed, with text parameters.
    #[track_caller]
    pub fn extended(&mut self, sql: &str, values: &[&str]) -> Reply {
        self.exchange(
            &[
                frames::parse("", sql),
                frames::bind("", values),
                frames::describe_portal(""),
                frames::execute("", 0),
                frames::sync(),
            ]
            .concat(),
        )
    }

    /// Prepares a named statement.
    #[track_caller]
    pub fn prepare(&mut self, name: &str, sql: &str) -> Reply {
        self.exchange(&[frames::parse(name, sql), frames::sync()].concat())
    }

    /// Executes a named statement.
    #[track_caller]
    pub fn execute(&mut self, name: &str, values: &[&str]) -> Reply {
        self.exchange(&[frames::bind(name, values), frames::execute("", 0), frames::sync()].concat())
    }

    /// Asks the server to cancel what this session runs.
    pub fn cancel(&self) {
        cancel(&self.address, &self.key);
    }

    /// A second handle to the same connection, for sending while this one reads.
    pub fn split_off(&self) -> Self {
        let stream = self.stream.get_ref().try_clone().unwrap();
        let (address, key) = (self.address.clone(), self.key.clone());
        Self { stream: BufReader::new(stream), address, key, parameters: Vec::new() }
    }

    /// Says goodbye and closes.
    pub fn terminate(mut self) {
        drop(self.try_send(&frames::terminate()));
    }
}

/// Sends a CancelRequest and waits until the server has closed that connection.
pub fn cancel(address: &Address, key: &[u8]) {
    let mut canceller = RawClient::connect(address);
    canceller.send(&frames::cancel_request(key));
    drop(canceller.try_frame());
}

fn is_the_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// What came back for one Query or one Sync.
#[derive(Debug)]
pub struct Reply {
    /// All messages, ReadyForQuery last.
    pub frames: Vec<Frame>,
}

impl Reply {
    /// The types of the messages, as one word.
    pub fn shape(&self) -> String {
        self.frames.iter().map(|frame| char::from(frame.tag)).collect()
    }

    /// All rows as text, NULL as `NULL`.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let text = |value: Option<Vec<u8>>| {
            value.map_or_else(|| "NULL".to_owned(), |value| String::from_utf8_lossy(&value).into_owned())
        };
        self.of(b'D').map(|frame| frame.values().into_iter().map(text).collect()).collect()
    }

    /// The command tags.
    pub fn tags(&self) -> Vec<String> {
        self.of(b'C').map(Frame::text).collect()
    }

    /// The first error.
    pub fn error(&self) -> Option<&Frame> {
        self.of(b'E').next()
    }

    /// SQLSTATE of the first error, or nothing.
    pub fn sqlstate(&self) -> String {
        self.error().and_then(|error| error.field(b'C')).unwrap_or_default()
    }

    /// The notices' texts.
    pub fn notices(&self) -> Vec<String> {
        self.of(b'N').filter_map(|frame| frame.field(b'M')).collect()
    }

    /// `I`, `T` or `E`.
    pub fn status(&self) -> char {
        self.frames.last().map_or('?', |frame| char::from(frame.body[0]))
    }

    fn of(&self, tag: u8) -> impl Iterator<Item = &Frame> {
        self.frames.iter().filter(move |frame| frame.tag == tag)
    }
}
