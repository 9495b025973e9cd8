//! A Redis server of our own.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use super::{
    programs,
    scratch::{Owned, free_port, scratch},
    wait_until,
};

/// Stops when it is dropped.
pub struct Redis {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    process: Owned,
}

impl Redis {
    /// Starts one without persistence.
    pub fn start() -> Self {
        let port = free_port();
        let home = scratch().directory("redis");
        let mut command = programs::command(&programs::program("redis-server", "redis-server"));
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", "no", "--dir"]).arg(&home);
        let redis = Self { port, process: Owned::spawn(command) };
        wait_until("Redis answers", || redis.try_command("PING").as_deref() == Some("+PONG\r\n"));
        redis
    }

    /// For `redis_url`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// One inline command; its answer as it comes.
    pub fn command(&self, line: &str) -> String {
        self.try_command(line).expect("Redis answers")
    }

    fn try_command(&self, line: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.write_all(format!("{line}\r\n").as_bytes()).ok()?;
        let mut answer = vec![0; 64 * 1024];
        let length = stream.read(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer[..length]).into_owned())
    }

    /// Stops it for good, as a crash would.
    pub fn kill(self) {
        drop(self.process);
    }
}
