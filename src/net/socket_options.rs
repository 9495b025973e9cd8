//! What the kernel is asked to do for a connection.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};

use super::Stream;
use crate::config::MainSection;

/// The `tcp_…` settings; they mean nothing to unix sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// `tcp_keepalive`.
    pub keepalive: bool,
    /// `tcp_keepcnt`; 0 is the kernel's default.
    pub keepcnt: u32,
    /// `tcp_keepidle`, seconds; 0 is the kernel's default.
    pub keepidle: u32,
    /// `tcp_keepintvl`, seconds; 0 is the kernel's default.
    pub keepintvl: u32,
    /// `tcp_user_timeout`, milliseconds; 0 is the kernel's default.
    pub user_timeout: u32,
    /// `tcp_socket_buffer`, bytes; 0 is the kernel's default.
    pub socket_buffer: u32,
}

impl SocketOptions {
    /// What is configured, for clients and servers alike.
    #[must_use]
    pub fn of(main: &MainSection) -> Self {
        Self {
            keepalive: main.tcp_keepalive,
            keepcnt: main.tcp_keepcnt,
            keepidle: main.tcp_keepidle,
            keepintvl: main.tcp_keepintvl,
            user_timeout: main.tcp_user_timeout,
            socket_buffer: main.tcp_socket_buffer,
        }
    }

    /// Asks for it.
    ///
    /// # Errors
    /// The kernel refuses a value; those before it hold.
    pub fn apply(&self, stream: &Stream) -> io::Result<()> {
        let Stream::Tcp(stream) = stream else { return Ok(()) };
        let socket = SockRef::from(stream);
        if self.socket_buffer > 0 {
            socket.set_send_buffer_size(self.socket_buffer as usize)?;
            socket.set_recv_buffer_size(self.socket_buffer as usize)?;
        }
        if self.keepalive {
            let seconds = |number: u32| Duration::from_secs(number.into());
            let mut keepalive = TcpKeepalive::new();
            if self.keepidle > 0 {
                keepalive = keepalive.with_time(seconds(self.keepidle));
            }
            if self.keepintvl > 0 {
                keepalive = keepalive.with_interval(seconds(self.keepintvl));
            }
            if self.keepcnt > 0 {
                keepalive = keepalive.with_retries(self.keepcnt);
            }
            socket.set_tcp_keepalive(&keepalive)?;
        }
        if self.user_timeout > 0 {
            socket.set_tcp_user_timeout(Some(Duration::from_millis(self.user_timeout.into())))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ends of a connection to this machine.
    async fn pair() -> (Stream, Stream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
        let (client, server) = tokio::join!(client, listener.accept());
        (Stream::Tcp(client.unwrap()), Stream::Tcp(server.unwrap().0))
    }

    #[tokio::test]
    async fn the_kernel_is_told_what_is_set_and_nothing_else() {
        let (Stream::Tcp(plain), stream) = pair().await else { panic!("no TCP") };
        let options = SocketOptions {
            keepalive: true,
            keepcnt: 3,
            keepidle: 20,
            keepintvl: 4,
            user_timeout: 5000,
            socket_buffer: 65536,
        };
        options.apply(&stream).unwrap();
        let Stream::Tcp(stream) = stream else { panic!("no TCP") };
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(20));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(4));
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(5)));
        // The kernel doubles what it is asked for.
        assert_eq!(socket.recv_buffer_size().unwrap(), 131_072);

        let before = SockRef::from(&plain).tcp_keepalive_time().unwrap();
        let plain = Stream::Tcp(plain);
        SocketOptions::default().apply(&plain).unwrap();
        let Stream::Tcp(plain) = plain else { panic!("no TCP") };
        assert!(!SockRef::from(&plain).keepalive().unwrap());
        assert_eq!(SockRef::from(&plain).tcp_keepalive_time().unwrap(), before);
    }
}
