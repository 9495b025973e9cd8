//! Stamps: which cached answers are still true.
//!
//! Every relation of a database has a [`Cell`](cell::Cell), a stamp and a count of writes in flight;
//! the catalog and the database as a whole share a gate that is read first. An answer carries the
//! stamps captured before its query was sent and is served only while nothing it depends on is in
//! flight and no stamp has moved.
//!
//! # What the parts promise each other
//!
//! * **Before the commit is forwarded** the write is marked on every cell it may touch
//!   ([`Cells::begin_write`]), so nobody can hit or capture them while the commit becomes visible at
//!   a moment the proxy cannot know.
//! * **Before the client learns of the commit** the stamps move ([`WriteGuard::committed`], or
//!   [`WriteGuard::reveal`] when more is to come), and only then does the mark go.
//! * **Before a fill's query is sent** its stamps are captured, so a write that the query may have
//!   missed moves a stamp after the capture and voids the fill.
//! * **Who does not know**, fails closed: a [`WriteGuard`] dropped without a verdict leaves its marks
//!   and an [`InDoubt`] record.
//!
//! # Why the orders suffice
//!
//! *A hit includes every write W that was visible on the primary when the hit began.* W's mark was set
//! before its commit was forwarded, hence before W was visible, hence before the hit began. The
//! reader loads the count first, the stamp second; the writer adds to the stamp first and takes the
//! mark away second. So a reader that finds the count without W's mark has read a value written by
//! (or after) the release of that mark, and its acquiring load of the count makes the earlier
//! addition to the stamp visible to its later load of the stamp: the stamps differ from those of any
//! entry captured before W's addition. An entry captured after it was computed by a query sent after
//! W's reply had reached the proxy, and includes W.
//!
//! *Marks and bytes.* The mark must be visible to all threads before the first byte of the commit
//! leaves, and the stamp before the first byte of the reply does. Neither is an atomic operation of
//! ours, so every change of a cell is sequentially consistent and is followed by a sequentially
//! consistent fence before the function returns: the socket call that follows cannot overtake it.
//! A capture ends with the same fence, so its loads cannot sink below the query's first byte.
//!
//! *Writes that bypass the proxy* are marked by nobody. Their stamps move once a snapshot of the primary shows them,
//! and a hit looks first at [`Cells::is_heard`]: the time up to which all of them are known, stored after their stamps
//! have moved, must not lie further back than was promised. [`super::wal`] says when that time may be told.
//!
//! *Rows.* A table whose rows are read and written by primary key has more cells: one that every write moves (`T`), one that
//! writes of unknown rows move (`U`), and a fixed number that rows share by a hash of their key (`B`). Whoever reads the table
//! depends on `T`, whoever asks for one key on `U` and on that key's `B`. A write of known keys marks and moves `T` and their
//! `B`, any other one `T` and `U`; what voids the database voids everybody through the gate. The argument above holds for each
//! cell by itself. What is left to show is that every write which may change the answer to a key has marked, before its commit
//! is forwarded, one of the two cells that the answer depends on. If its rows are unknown, that is `U`. If they are known, it
//! changes no rows of other keys, before or after ([`crate::catalog::Keyed`] says why), so one of its keys is the one asked
//! for, and equal keys have equal numbers ([`crate::catalog::KeyType`]).
//!
//! *Rows that get cells meanwhile* change nothing in that: a write chooses its cells once, when it is marked. If there is no `B`
//! at that moment it is a write of unknown rows, marks `U` and moves it, and answers captured with a `B` that has come since
//! depend on `U`, too. An answer captured without `B` depends on `T` for good. Cells of rows stay as long as the table has any.
//! The time of the last write, which a fill from a replica rests on, is that of `U` and `B`, each set where the stamp is moved.
//!
//! *Other proxies* are told what a write has marked, `T` and `U` or `T` and some `B`, and mark and move the same. Equal keys have
//! the same place everywhere: the number of a row is made of the value alone, and how many places there are belongs to the
//! version of what is told. Which column is the key does not: definitions that no proxy has changed come to each at a moment of
//! its own. So the key is told as well ([`crate::catalog::KeyId`]), and a table's `B` are those of one key for good: rows that are
//! told, read or written by another one are unknown rows. Definitions that a proxy changes need no such care, because the
//! change is marked everywhere before it commits, and who has marked it neither answers nor believes what it has understood.
//! Whoever is told of rows gives them cells, if there is room ([`Cells::with_rows`]); where there is none, they are unknown rows
//! there. That is settled once for a table, so mark and move of one write meet the same cells.
//!
//! *Stamps of rows in other processes.* All that have heard the same have the same `U` and `B`, in any order: who has told a write
//! has settled which of them it moves. Where one has moved `U` instead, the two differ, and answers of the one are not found by
//! the other. They are never equal by mistake: of every write that may change the answer to a key and that was heard of, `U` or
//! that key's `B` contains the draw, on each proxy, and equal sums are sums of equal draws. So whoever finds an answer by its
//! own stamps finds one that was asked for by somebody who had heard as much. A proxy that takes the sums of another one
//! ([`Totals`]) takes those of rows as well; where it cannot, its `U` begins at the sum of `T`, which contains all of them.
//!
//! *Stamps are sums of random draws*, not counters: two proxies that apply the same bumps in any order
//! agree, and two different sets of bumps agree with probability 2^-64.

mod cell;
mod cells;
mod deps;
mod direct;
mod gate;
mod peers;
mod table;
mod totals;
mod write;

pub use cells::{Captured, CatalogEpoch, CellReport, Cells, Uncaptured};
pub use deps::Deps;
pub use direct::Voids;
pub use gate::Closure;
pub use peers::{Peers, Places, Ticket, WriteId, WriteSet};
pub use table::{CELLS as ROW_CELLS, ROWS_BYTES};
pub use totals::{RowTotals, Totals};
pub use write::{InDoubt, Origin, Touched, WriteGuard};
