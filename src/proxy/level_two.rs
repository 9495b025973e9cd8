//! Level two of the cache, as configured.

use std::sync::Arc;

use super::{ProcessError, directory::Shared};
use crate::{
    cache::{
        SharedCache,
        shared::{SharedError, SharedSettings},
    },
    client::Settings,
    config::{CacheMode, CacheSection},
};

/// What is configured, if anything is; `roots` is what is in `redis_tls_ca_file`.
pub(crate) fn wanted(cache: &CacheSection, roots: Option<Vec<u8>>) -> Option<SharedSettings> {
    let url = cache.redis_url.as_ref().filter(|_| cache.enabled == CacheMode::On)?;
    let secret = cache.secret.as_ref()?.reveal().to_owned();
    Some(SharedSettings { url: url.reveal().to_owned(), secret, roots })
}

/// The one there is, if it is still the right one, or a new one; nothing where none is configured.
pub(super) fn next(
    before: Option<Arc<SharedCache>>,
    settings: &Settings,
    process: &Shared,
) -> Result<Option<Arc<SharedCache>>, ProcessError> {
    let wanted = wanted(&settings.config.cache, settings.redis_roots.clone());
    let Some(wanted) = wanted else { return Ok(None) };
    let limits = (settings.config.cache.redis_timeout, settings.config.cache.redis_min_cost);
    if let Some(known) = before.filter(|known| *known.settings() == wanted) {
        known.set_limits(limits.0, limits.1);
        return Ok(Some(known));
    }
    let spawn = |task| _ = process.tracker.spawn_on(task, &process.handle);
    let started = SharedCache::start(wanted, limits, process.clock, &process.stop, spawn);
    Ok(Some(started.map_err(|error: SharedError| ProcessError::LevelTwo(error))?))
}
