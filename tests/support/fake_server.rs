//! A PostgreSQL server that says exactly what the test wants, faults included.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    frames::{self, Frame},
    raw_client::Address,
};

/// Listens until it is dropped; each connection runs the script in a thread of its own.
pub struct FakeServer {
    /// Its port, on 127.0.0.1 unless it was started elsewhere.
    pub port: u16,
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    logins: AtomicUsize,
    endings: AtomicUsize,
    cancels: Mutex<Vec<Vec<u8>>>,
    attempts: AtomicUsize,
    refusal: Mutex<Option<Vec<u8>>>,
    stalled: AtomicBool,
    cancels_are_held: Mutex<bool>,
    cancels_go_on: Condvar,
}

impl FakeServer {
    /// The script runs after each login; when it returns, the connection is closed.
    pub fn start(script: impl Fn(&mut FakeSession) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", script)
    }

    /// As [`Self::start`], at this address.
    pub fn start_at(
        address: &str,
        script: impl Fn(&mut FakeSession) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let script = Arc::new(script);
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for stream in listener.incoming().flatten() {
                    if shared.stopped.load(Ordering::Acquire) {
                        return;
                    }
                    let shared = Arc::clone(&shared);
                    let script = Arc::clone(&script);
                    thread::spawn(move || serve(stream, &shared, &*script));
                }
            }
        });
        Self { port: address.port(), address, shared, acceptor: Some(acceptor) }
    }

    /// Where it listens.
    pub fn address(&self) -> Address {
        Address::Tcp(self.port)
    }

    /// How many logins it has seen.
    pub fn logins(&self) -> usize {
        self.shared.logins.load(Ordering::Acquire)
    }

    /// How many logins were tried for clients, with success or without: the proxy's own, as superuser, do not count.
    pub fn attempts(&self) -> usize {
        self.shared.attempts.load(Ordering::Acquire)
    }

    /// From now on logins are answered with this `ErrorResponse`; `None`: taken again.
    pub fn refuse(&self, refusal: Option<Vec<u8>>) {
        *self.shared.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
    }

    /// From now on logins get no answer.
    pub fn stall(&self) {
        self.shared.stalled.store(true, Ordering::Release);
    }

    /// Answers those logins, and those to come.
    pub fn go_on(&self) {
        self.shared.stalled.store(false, Ordering::Release);
    }

    /// How many logged-in connections it has closed.
    pub fn endings(&self) -> usize {
        self.shared.endings.load(Ordering::Acquire)
    }

    /// From now on the connections of cancel requests stay open, or no longer.
    pub fn hold_cancels(&self, are_held: bool) {
        *self.shared.cancels_are_held.lock().unwrap_or_else(PoisonError::into_inner) = are_held;
        self.shared.cancels_go_on.notify_all();
    }

    /// The keys of the cancel requests it has seen.
    pub fn cancels(&self) -> Vec<Vec<u8>> {
        self.shared.cancels.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
    }
}

fn serve(stream: TcpStream, shared: &Shared, script: &(dyn Fn(&mut FakeSession) -> io::Result<()> + Send + Sync)) {
    drop(stream.set_nodelay(true));
    let mut session = FakeSession { stream, parameters: Vec::new() };
    // A peer that goes away ends the script with an error: that is how connections end.
    let logged_in = session.log_in(shared).unwrap_or(false);
    if logged_in {
        shared.logins.fetch_add(1, Ordering::AcqRel);
        drop(script(&mut session));
    }
    drop(session.stream.shutdown(Shutdown::Both));
    if logged_in {
        shared.endings.fetch_add(1, Ordering::AcqRel);
    }
}

/// One connection that has logged in.
pub struct FakeSession {
    stream: TcpStream,
    /// What the startup message said.
    pub parameters: Vec<(String, String)>,
}

impl FakeSession {
    fn log_in(&mut self, shared: &Shared) -> io::Result<bool> {
        loop {
            let body = self.untyped()?;
            match u32::from_be_bytes([body[0], body[1], body[2], body[3]]) {
                80_877_102 => {
                    shared.cancels.lock().unwrap_or_else(PoisonError::into_inner).push(body[4..].to_vec());
                    let held = shared.cancels_are_held.lock().unwrap_or_else(PoisonError::into_inner);
                    drop(shared.cancels_go_on.wait_while(held, |are_held| *are_held));
                    return Ok(false);
                }
                80_877_103 | 80_877_104 => self.send(b"N")?,
                _ => {
                    self.parameters = startup_parameters(&body[4..]);
                    break;
                }
            }
        }
        let is_own = self.parameters.iter().any(|(name, value)| name == "user" && value == super::cluster::SUPERUSER);
        shared.attempts.fetch_add(usize::from(!is_own), Ordering::AcqRel);
        self.stream.set_read_timeout(Some(Duration::from_millis(20)))?;
        while shared.stalled.load(Ordering::Acquire) {
            // The proxy says nothing now; it may leave.
            match self.stream.peek(&mut [0]) {
                Ok(_) => return Ok(false),
                Err(error) if [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind()) => {}
                Err(error) => return Err(error),
            }
        }
        self.stream.set_read_timeout(None)?;
        let refusal = shared.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(refusal) = refusal {
            self.send(&refusal)?;
            return Ok(false);
        }
        let mut greeting = frames::message(b'R', &0_u32.to_be_bytes());
        for (name, value) in [
            ("server_version", "15.0"),
            ("server_encoding", "UTF8"),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO, MDY"),
            ("TimeZone", "UTC"),
            ("IntervalStyle", "postgres"),
            ("integer_datetimes", "on"),
            ("standard_conforming_strings", "on"),
            ("application_name", ""),
            ("is_superuser", "off"),
            ("session_authorization", "app"),
            ("in_hot_standby", "off"),
            ("default_transaction_read_only", "off"),
        ] {
            greeting.extend(frames::parameter_status(name, value));
        }
        greeting.extend(frames::message(b'K', &[0, 0, 0, 7, 0, 0, 0, 9]));
        greeting.extend(frames::ready(b'I'));
        self.send(&greeting)?;
        Ok(true)
    }

    fn untyped(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
        self.stream.read_exact(&mut body)?;
        Ok(body)
    }

    /// The next message of the proxy.
    pub fn frame(&mut self) -> io::Result<Frame> {
        let mut tag = [0];
        self.stream.read_exact(&mut tag)?;
        let body = self.untyped()?;
        Ok(Frame { tag: tag[0], body })
    }

    /// Says exactly these bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Answers everything the proxy asks on its own account, and returns with the first message
    /// whose bytes hold the marker; that one is not answered.
    pub fn until_asked(&mut self, marker: &str) -> io::Result<Frame> {
        loop {
            let frame = self.frame()?;
            if frame.body.windows(marker.len()).any(|window| window == marker.as_bytes()) {
                return Ok(frame);
            }
            self.answer_blandly(&frame)?;
        }
    }

    /// The least a server can say to this message.
    pub fn answer_blandly(&mut self, frame: &Frame) -> io::Result<()> {
        match frame.tag {
            b'Q' if frame.text().is_empty() => {
                self.send(&[&frames::message(b'I', &[])[..], &frames::ready(b'I')].concat())
            }
            b'Q' => self.send(&[frames::command_complete("SET"), frames::ready(b'I')].concat()),
            b'P' => self.send(&frames::message(b'1', &[])),
            b'B' => self.send(&frames::message(b'2', &[])),
            b'C' => self.send(&frames::message(b'3', &[])),
            b'D' => self.send(&frames::message(b'n', &[])),
            b'E' => self.send(&frames::command_complete("SELECT 0")),
            b'S' => self.send(&frames::ready(b'I')),
            b'X' => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

fn startup_parameters(body: &[u8]) -> Vec<(String, String)> {
    let texts: Vec<String> =
        body.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect();
    texts
        .chunks_exact(2)
        .take_while(|pair| !pair[0].is_empty())
        .map(|pair| (pair[0].clone(), pair[1].clone()))
        .collect()
}
