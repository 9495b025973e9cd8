//! One client's protocol state: what it asked, what it is owed, what it prepared, and where its next request goes.

pub mod parameters;
pub mod pins;
pub mod prepared;
pub mod replies;
pub mod request;

pub use parameters::Parameters;
pub use pins::{PinSet, Probe};
pub use prepared::{Prepared, PreparedNames, StatementId, StatementRegistry};
pub use replies::{Delivery, Expected, Replies, Reply, Undo, Verdict};
pub use request::{Request, RequestKind};
