//! Who a client is, and who we are to a server: exchanges fed with bytes, no IO.

mod challenge;
mod credentials;
mod hba;
mod ident;
mod md5;
mod refusal;
mod saslprep;
pub mod scram;
mod secret;
pub mod server_login;
mod userlist;

pub use self::{
    challenge::{Challenge, Method, challenge, method, verify_clear},
    credentials::Credentials,
    hba::{Connection, HbaRule, HbaRules, ReadFile},
    ident::{IdentMap, IdentMaps},
    md5::verify_md5,
    refusal::Refusal,
    secret::{ScramSecret, Secret},
    userlist::UserList,
};
