//! Several proxies in front of one database: each hears of the writes of the others in time.
//!
//! # What they promise each other
//!
//! * **Before a commit is sent** every other proxy that may serve answers has marked what it may touch
//!   ([`frame::Told::Begin`]), or it serves nothing.
//! * **Before its client learns of it** every one of them has moved its stamps ([`frame::Told::Bump`]), or serves nothing.
//! * **Who may serve** is who has a lease of every other member, and a list of the members that is young enough. A lease begins
//!   when a ping is *sent* and is counted by the one who sent it; the other one counts from when it answered, which is later, and
//!   a tenth longer. So no clock is ever compared with another. Clocks go on while a machine sleeps ([`crate::clock`]).
//! * **Who is a member** is decided by locks on the primary, which every write needs anyway. Whoever is listed there is waited
//!   for, or serves nothing: it must have been heard ([`frame::Note::Hello`], [`frame::Note::Welcome`]) by everybody on the list.
//!   Who has gone from the list serves nothing and begins no commit as soon as its last list is too old, and is forgotten
//!   only then.
//! * **What runs on without its proxy** is marked until its transaction is over. Whoever joins, or may have missed the last
//!   words of one that was lost, asks the primary what is under way before it serves anything, and then those who have heard
//!   everything what they have marked ([`super::unattended`]).
//! * **What is told is numbered.** Whoever misses a number serves nothing until it has been welcomed anew.
//!
//! # Why stamps agree
//!
//! Stamps are sums of random draws, so whoever has heard the same things in any order has the same stamps, and an answer that
//! one proxy has stored elsewhere is found by the others. A new proxy takes the sums of one that has them, with the numbers up
//! to which they are complete, and adds what it has heard beyond. Whoever has missed something takes them again, and then
//! voids everything: what it holds under sums of its own must never be taken for current. The same goes for stamps of rows
//! ([`super::invalidation`] says which of them a write moves).
//!
//! A write is told with the places of its rows as long as its transaction has said no more than 256 keys, else with its tables:
//! less than 1 kB. The sums of all tables with rows are at most 128 times 2048, 3 MB, and mostly some kB.

pub mod frame;
mod member;
mod peer;
mod shared;
mod times;
pub mod transport;

pub use member::{BusFigures, Clearance, Member};
pub use shared::Bus;
pub use times::Times;

#[cfg(test)]
mod tests;
