//! Sockets and the bytes in flight on them.

mod buffers;
mod courier;
mod endpoint;
mod life;
mod listener;
mod socket_options;
mod stream;
pub mod tls;

pub use courier::Courier;
pub use endpoint::{Endpoint, HIGH_WATER_BYTES, Inbox, InboxFigures, Outbox, PeerError, Pumped, Side, poll_pump};
pub use life::Life;
pub use listener::{Accepted, Acceptor, Listener, SharedListener};
pub use socket_options::SocketOptions;
pub use stream::{Address, Local, Peer, Stream, connect_unix};
