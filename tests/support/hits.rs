//! Answers that come from memory, told from those of the shared primary, which logs each statement.

use super::{Proxy, RawClient, cluster, scratch::scratch, wait_until};

/// A mark that no other statement has.
pub fn mark() -> String {
    format!("/* mark {} */", scratch().unique())
}

/// Whether the server had nothing to do with this read.
#[track_caller]
pub fn is_hit(session: &mut RawClient, read: &str, mark: &str) -> bool {
    let before = cluster().primary.executions(mark);
    let reply = session.query(&format!("{read} {mark}"));
    assert!(reply.error().is_none(), "{read}: {reply:?}");
    cluster().primary.executions(mark) == before
}

/// Repeats the read until it is a hit.
#[track_caller]
pub fn warm_up(session: &mut RawClient, read: &str, mark: &str) {
    wait_until(&format!("a hit of {read}"), || is_hit(session, read, mark));
}

/// Writes of known rows of `public.t` that a proxy has heard of or done, where its rows have cells.
pub fn by_key(proxy: &Proxy) -> Option<u64> {
    proxy.show("CACHE TABLES").select("relation", "public.t", "by_key").first()?.parse().ok()
}
