//! A hot standby as PostgreSQL 19 would be: a real one of an older version behind a door that says another version and answers
//! WAIT FOR itself.
//!
//! <https://www.postgresql.org/docs/19/sql-wait-for.html>

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    cluster::SUPERUSER,
    frames,
    raw_client::{Address, RawClient},
};

const SSL_REQUEST: [u8; 4] = 80_877_103u32.to_be_bytes();

/// The door; it stays open as long as the test process lives.
pub struct Standby19 {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    waits: AtomicUsize,
    refuses: AtomicBool,
}

impl Standby19 {
    /// In front of the standby on that port.
    pub fn start(standby: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || drop(serve(client, standby, &state)));
            }
        });
        Self { port, state }
    }

    /// How many commands have waited, or wait.
    pub fn waits(&self) -> usize {
        self.state.waits.load(Ordering::Acquire)
    }

    /// From now on they fail.
    pub fn refuse(&self) {
        self.state.refuses.store(true, Ordering::Release);
    }
}

fn serve(mut client: TcpStream, standby: u16, state: &State) -> io::Result<()> {
    let mut start = untyped(&mut client)?;
    if start[4..8] == SSL_REQUEST {
        client.write_all(b"N")?;
        start = untyped(&mut client)?;
    }
    let mut server = TcpStream::connect(("127.0.0.1", standby))?;
    server.write_all(&start)?;
    let (back, home) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        drop(answers(back, &home));
        drop(home.shutdown(Shutdown::Both));
    });
    let outcome = requests(&mut client, &mut server, standby, state);
    server.shutdown(Shutdown::Both)?;
    outcome
}

/// With the version that it pretends to have.
fn answers(mut server: TcpStream, mut client: &TcpStream) -> io::Result<()> {
    loop {
        let message = typed(&mut server)?;
        match message.starts_with(b"S") && message[5..].starts_with(b"server_version\0") {
            true => client.write_all(&frames::parameter_status("server_version", "19.0"))?,
            false => client.write_all(&message)?,
        }
    }
}

fn requests(client: &mut TcpStream, server: &mut TcpStream, standby: u16, state: &State) -> io::Result<()> {
    loop {
        let message = typed(client)?;
        let text = String::from_utf8_lossy(&message).into_owned();
        if message[0] != b'Q' || !text.contains("WAIT FOR") {
            server.write_all(&message)?;
            continue;
        }
        // Nothing else of the syntax is understood.
        let parts: Vec<&str> = text[5..].trim_end_matches('\0').split('\'').collect();
        let ["WAIT FOR LSN ", position, " WITH (TIMEOUT ", timeout, ", NO_THROW)"] = parts[..] else {
            panic!("{text}");
        };
        state.waits.fetch_add(1, Ordering::AcqRel);
        if state.refuses.load(Ordering::Acquire) {
            let mut answer = frames::response(b'E', "ERROR", "55000", "recovery is not in progress");
            answer.extend(frames::ready(b'I'));
            client.write_all(&answer)?;
            continue;
        }
        let milliseconds = timeout.strip_suffix("ms").unwrap().parse().unwrap();
        let status = wait(standby, position, Duration::from_millis(milliseconds));
        let mut answer = frames::row_description(&["status"]);
        answer.extend(frames::data_row(&[status]));
        answer.extend(frames::command_complete("WAIT"));
        answer.extend(frames::ready(b'I'));
        client.write_all(&answer)?;
    }
}

fn wait(standby: u16, position: &str, timeout: Duration) -> &'static str {
    let started = Instant::now();
    let mut session = RawClient::session(&Address::Tcp(standby), SUPERUSER, "postgres");
    while session.value(&format!("select pg_last_wal_replay_lsn() >= '{position}'")) != "t" {
        if started.elapsed() >= timeout {
            return "timeout";
        }
        thread::sleep(Duration::from_millis(2));
    }
    "success"
}

fn untyped(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 4];
    stream.read_exact(&mut message)?;
    finish(stream, message, 0)
}

fn typed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 5];
    stream.read_exact(&mut message)?;
    finish(stream, message, 1)
}

fn finish(stream: &mut TcpStream, mut message: Vec<u8>, tag: usize) -> io::Result<Vec<u8>> {
    let length = u32::from_be_bytes(message[tag..].try_into().unwrap()) as usize;
    message.resize(length + tag, 0);
    stream.read_exact(&mut message[tag + 4..])?;
    Ok(message)
}
