//! A second way to a server, which counts who takes it.

use std::{
    io,
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Hands every byte on for as long as the test process lives.
pub struct Forwarder {
    /// Where it listens.
    pub port: u16,
    open: Arc<AtomicUsize>,
}

impl Forwarder {
    /// From this address to a port of 127.0.0.1.
    pub fn start(address: &str, to: u16) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let open = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&open);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let counted = Arc::clone(&counted);
                counted.fetch_add(1, Ordering::AcqRel);
                thread::spawn(move || {
                    let (mut back, mut home) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                    let answers = thread::spawn(move || {
                        drop(io::copy(&mut back, &mut home));
                        drop(home.shutdown(Shutdown::Both));
                    });
                    let (mut client, mut server) = (client, server);
                    drop(io::copy(&mut client, &mut server));
                    drop(server.shutdown(Shutdown::Both));
                    drop(answers.join());
                    counted.fetch_sub(1, Ordering::AcqRel);
                });
            }
        });
        Self { port, open }
    }

    /// Connections at the moment.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }
}
