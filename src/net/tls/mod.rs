//! TLS on either side of the proxy, by rustls.

mod accept;
mod peer;
mod stream;

pub(super) use self::stream::TlsStream;
pub use self::{
    accept::{ALPN, AcceptTls},
    peer::{TlsFacts, end_point},
};
