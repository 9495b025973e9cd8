//! One client's protocol state: what it asked, what it is owed, what it prepared, and where its next request goes.

mod custom;
pub mod parameters;
pub mod pins;
pub mod prepared;
pub mod replies;
pub mod request;
mod sequences;
pub mod settings;

pub use custom::{CustomSettings, is_custom, named_in};
pub use parameters::Parameters;
pub use pins::{Held, PinSet, Probe};
pub use prepared::{Prepared, PreparedNames, StatementId, StatementRegistry};
pub use replies::{Delivery, Expected, Replies, Reply, Undo, Verdict};
pub use request::{Request, RequestKind};
pub use sequences::Sequences;
pub use settings::SessionSettings;
