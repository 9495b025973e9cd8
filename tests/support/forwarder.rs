//! A second way to a server, which counts who takes it, and breaks where a test wants it to.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Hands every byte on for as long as the test process lives.
pub struct Forwarder {
    /// Where it listens.
    pub port: u16,
    open: Arc<AtomicUsize>,
    shared: Arc<Breaking>,
}

/// Where connections break.
#[derive(Default)]
struct Breaking {
    /// Behind what a client says, and so many bytes of what the server says then.
    next: Mutex<Option<(String, usize)>>,
    count: AtomicUsize,
    cut: Mutex<Cut>,
    mended: Condvar,
}

/// What does not get through.
#[derive(Default)]
struct Cut {
    there: bool,
    back: bool,
    /// How often connections ended with a cut.
    severed: usize,
}

impl Breaking {
    /// Waits as long as nothing gets through this way; false if the connection has ended with the cut.
    fn pass(&self, is_back: bool, severed: usize) -> bool {
        let is_cut = |cut: &mut Cut| if is_back { cut.back } else { cut.there };
        let cut = self.mended.wait_while(self.cut.lock().unwrap(), is_cut).unwrap();
        cut.severed == severed
    }

    /// How many bytes may come back from now on, if the connection is to break.
    fn limit(&self, said: &[u8]) -> Option<usize> {
        let mut next = self.next.lock().unwrap();
        let is_it = |(mark, _): &mut (String, usize)| said.windows(mark.len()).any(|part| part == mark.as_bytes());
        next.take_if(is_it).map(|(_, bytes)| bytes)
    }
}

/// Hands on what comes from a client, and says how much may come back.
fn hand_on(client: &mut TcpStream, server: &mut TcpStream, shared: &Breaking, limit: &AtomicUsize) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    let severed = shared.cut.lock().unwrap().severed;
    loop {
        let bytes = client.read(&mut buffer)?;
        if !shared.pass(false, severed) || bytes == 0 {
            return Ok(());
        }
        if let Some(bytes) = shared.limit(&buffer[..bytes]) {
            limit.store(bytes, Ordering::Release);
        }
        server.write_all(&buffer[..bytes])?;
    }
}

/// Hands on what comes from a server, up to the limit.
fn hand_back(server: &mut TcpStream, client: &mut TcpStream, shared: &Breaking, limit: &AtomicUsize) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    let severed = shared.cut.lock().unwrap().severed;
    loop {
        let bytes = server.read(&mut buffer)?;
        if !shared.pass(true, severed) {
            return Ok(());
        }
        let left = limit.load(Ordering::Acquire);
        client.write_all(&buffer[..bytes.min(left)])?;
        if bytes == 0 || bytes >= left {
            shared.count.fetch_add(usize::from(bytes > 0), Ordering::AcqRel);
            return Ok(());
        }
        if left != usize::MAX {
            limit.store(left - bytes, Ordering::Release);
        }
    }
}

impl Forwarder {
    /// From this address to a port of 127.0.0.1.
    pub fn start(address: &str, to: u16) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let open = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&open);
        let shared = Arc::<Breaking>::default();
        let breaking = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let (counted, shared) = (Arc::clone(&counted), Arc::clone(&breaking));
                counted.fetch_add(1, Ordering::AcqRel);
                thread::spawn(move || {
                    let (mut back, mut home) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                    let limit = Arc::new(AtomicUsize::new(usize::MAX));
                    let answers = thread::spawn({
                        let (shared, limit) = (Arc::clone(&shared), Arc::clone(&limit));
                        move || {
                            drop(hand_back(&mut back, &mut home, &shared, &limit));
                            drop(home.shutdown(Shutdown::Both));
                        }
                    });
                    let (mut client, mut server) = (client, server);
                    drop(hand_on(&mut client, &mut server, &shared, &limit));
                    drop(server.shutdown(Shutdown::Both));
                    drop(answers.join());
                    counted.fetch_sub(1, Ordering::AcqRel);
                });
            }
        });
        Self { port, open, shared }
    }

    /// The next connection on which this is said breaks when so many bytes have come back.
    pub fn break_after(&self, said: &str, bytes: usize) {
        *self.shared.next.lock().unwrap() = Some((said.to_owned(), bytes));
    }

    /// From now on nothing gets through in one of the ways, or both, as if the network had lost it.
    pub fn cut(&self, there: bool, back: bool) {
        let mut cut = self.shared.cut.lock().unwrap();
        (cut.there, cut.back) = (there, back);
    }

    /// Everything gets through again: what was held late, or, if the connections are `severed`, never.
    pub fn mend(&self, severed: bool) {
        let mut cut = self.shared.cut.lock().unwrap();
        *cut = Cut { severed: cut.severed + usize::from(severed), ..Cut::default() };
        self.shared.mended.notify_all();
    }

    /// How many connections were broken.
    pub fn broken(&self) -> usize {
        self.shared.count.load(Ordering::Acquire)
    }

    /// Connections at the moment.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }
}
