//! A Redis server of our own.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;

use super::{
    programs,
    scratch::{Owned, free_port, scratch},
    wait_until,
};

/// Stops when it is dropped.
pub struct Redis {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    home: PathBuf,
    arguments: Vec<String>,
    process: Owned,
}

fn spawn(port: u16, home: &Path, arguments: &[String]) -> Owned {
    let mut command = programs::command(&programs::program("redis-server", "redis-server"));
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
    command.args(["--appendonly", "no", "--dir"]).arg(home).args(arguments);
    Owned::spawn(command)
}

impl Redis {
    /// Starts one without persistence.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts one with these arguments.
    pub fn with(arguments: &[&str]) -> Self {
        Self::at(scratch().directory("redis"), arguments)
    }

    /// The same in this directory.
    pub fn at(home: PathBuf, arguments: &[&str]) -> Self {
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        loop {
            let port = free_port();
            let process = spawn(port, &home, &arguments);
            let mut redis = Self { port, home: home.clone(), arguments: arguments.clone(), process };
            let mut has_ended = false;
            wait_until("Redis answers", || {
                has_ended = redis.process.ended().is_some();
                has_ended || redis.answers()
            });
            // The members of a cluster listen 10,000 ports further up as well, where somebody else may be.
            let is_taken = has_ended && arguments.iter().any(|argument| argument == "--cluster-enabled");
            assert!(!has_ended || is_taken, "redis-server ended");
            if !has_ended {
                return redis;
            }
        }
    }

    /// Starts sentinels' one, which watches that server under the name `main`.
    pub fn sentinel(watched: &Redis) -> Self {
        let (port, home) = (free_port(), scratch().directory("sentinel"));
        let file = home.join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n",
            home.display(),
            watched.port
        );
        scratch().write(&file, &text);
        let mut command = programs::command(&programs::program("redis-server", "redis-server"));
        command.arg(&file).arg("--sentinel");
        let process = Owned::spawn(command);
        Self { port, home, arguments: vec![], process }.answering()
    }

    fn answering(self) -> Self {
        wait_until("Redis answers", || self.answers());
        self
    }

    /// One that wants a password says so.
    fn answers(&self) -> bool {
        self.try_command("PING").is_some_and(|answer| answer == "+PONG\r\n" || answer.starts_with("-NOAUTH"))
    }

    /// For `redis_url`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Where its files are.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// A client, for values that are no text.
    pub fn client(&self) -> redis::Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
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

    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Stops it for good, as a crash would.
    pub fn kill(self) {
        drop(self.process);
    }

    /// Kills it and starts it again, empty, in the same place.
    pub fn restart(&mut self) {
        self.die();
        self.come_back();
    }

    /// Kills it.
    pub fn die(&self) {
        self.process.signal(Signal::SIGKILL);
        wait_until("Redis is gone", || self.try_command("PING").is_none());
    }

    /// Starts it again, empty, in the same place.
    pub fn come_back(&mut self) {
        drop(fs::remove_file(self.home.join("dump.rdb")));
        self.process = spawn(self.port, &self.home, &self.arguments);
        wait_until("Redis answers", || self.try_command("PING").as_deref() == Some("+PONG\r\n"));
    }
}
