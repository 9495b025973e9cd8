//! Which member of a cluster serves a read: pure, lock-free but for one short mutex.
//!
//! Time is `u64` nanoseconds of one monotonic clock of the process, never 0.
//!
//! Everything about freshness is one comparison of local times. Primary samples are ordered by the
//! moment their query was sent *and* by the position they returned. A write acknowledged at `t` is
//! contained in the position of any sample sent after `t`. So a replica has replayed the write as soon
//! as it replayed a sample sent after `t`, and it is enough to keep, per replica, the moment at which
//! the newest sample it replayed was sent ([`MemberState::covers`]).

mod balance;
mod ban;
mod choice;
mod fence;
mod member;
mod samples;
mod topology;

pub use choice::{Choice, Demand, Freshness, RouteReason};
pub use fence::{Fence, SharedFence, Watermark};
pub use member::{Health, Member, MemberId, MemberSet, MemberState, Role};
pub use samples::{PrimarySamples, Sample};
pub use topology::{Behind, Limits, Topology};
