//! Who a client is, and who we are to a server: exchanges fed with bytes, no IO.

mod challenge;
mod md5;
mod saslprep;
pub mod scram;
mod secret;
pub mod server_login;
mod userlist;

pub use self::{
    challenge::{Challenge, challenge, verify_clear},
    md5::verify_md5,
    secret::{ScramSecret, Secret},
    userlist::UserList,
};
