//! What the HTTP pages show of the process.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use serde_json::{Value, json};

use super::{ProcessError, Proxy, console::View, figures, samples};
use crate::{
    admin::ConsoleState,
    config::Config,
    routing::Health,
    telemetry::{
        figures::PgbouncerView,
        http::{HttpState, Readiness, bind, serve},
    },
};

struct Pages {
    proxy: Weak<Proxy>,
    view: View,
}

/// Query shapes and slow requests on the dashboard.
const SHOWN: usize = 20;

/// How long and how often the address of a process that ends is tried.
const LATE_PAUSE: Duration = Duration::from_millis(100);
const LATE_ATTEMPTS: usize = 100;

/// Listens, if an address is configured.
pub(super) async fn start(proxy: &Arc<Proxy>, config: &Config) -> Result<(), ProcessError> {
    let address = config.http.listen.trim();
    if address.is_empty() {
        return Ok(());
    }
    let failed = |source| ProcessError::Listen { address: address.to_owned(), source };
    let parsed = address.parse().map_err(|_| failed(std::io::ErrorKind::InvalidInput.into()))?;
    let listener = bind(parsed).await.map_err(failed)?;
    let weak = Arc::downgrade(proxy);
    let pages: Arc<dyn HttpState> = Arc::new(Pages { proxy: Weak::clone(&weak), view: View::new(weak) });
    let stop = proxy.cancel.clone();
    proxy.has_http.store(true, Ordering::Relaxed);
    proxy.tracker.spawn(async move { serve(listener, pages, stop).await });
    Ok(())
}

/// The other process has had the address until now.
pub(super) async fn start_late(proxy: &Arc<Proxy>) {
    let settings = proxy.context.settings();
    if proxy.has_http.load(Ordering::Relaxed) {
        return;
    }
    for _ in 0..LATE_ATTEMPTS {
        match start(proxy, &settings.config).await {
            Ok(()) => return,
            Err(error) => tracing::info!(%error, "http address not free yet"),
        }
        tokio::time::sleep(LATE_PAUSE).await;
    }
    tracing::error!(address = settings.config.http.listen, "no http server");
}

fn value(rows: impl serde::Serialize) -> Value {
    serde_json::to_value(rows).unwrap_or_default()
}

impl HttpState for Pages {
    fn metrics(&self) -> String {
        let Some(proxy) = self.proxy.upgrade() else { return String::new() };
        proxy.metrics.render(&samples::of(&proxy), Some(&self.view))
    }

    fn readiness(&self, database: Option<&str>) -> Readiness {
        let Some(proxy) = self.proxy.upgrade() else { return Readiness::NotReady };
        let served = match database {
            Some(name) => match proxy.installation.find(name) {
                Some(served) => vec![served],
                None => return Readiness::UnknownDatabase,
            },
            None => proxy.installation.all(),
        };
        let is_reachable = |served: &Arc<super::served::Served>| {
            let database = &served.database;
            let Some(primary) = database.primary() else { return false };
            let member = database.topology.member(primary);
            let is_watched = served.control.get().is_some_and(|control| control.watches_members());
            let probed = !is_watched || member.is_some_and(|member| member.state.health() == Health::Up);
            let name = database.member_name(primary).unwrap_or(&database.name);
            let pools = figures::member_pools(&proxy, &database.name, name);
            probed && (is_watched || pools.is_empty() || pools.iter().any(|pool| !pool.servers().is_empty()))
        };
        if served.iter().all(is_reachable) { Readiness::Ready } else { Readiness::NotReady }
    }

    fn overview(&self) -> Value {
        let uptime = self.proxy.upgrade().map(|proxy| proxy.started.elapsed().as_secs()).unwrap_or_default();
        json!({
            "version": self.view.version(),
            "uptime_seconds": uptime,
            "pools": value(self.view.pools()),
            "replicas": self.replicas(),
            "cache": self.cache(),
            "queries": self.queries(SHOWN),
            "slow": self.slow(SHOWN),
        })
    }

    fn queries(&self, limit: usize) -> Value {
        value(self.view.queries(limit))
    }

    fn slow(&self, limit: usize) -> Value {
        value(ConsoleState::slow(&self.view, limit))
    }

    fn replicas(&self) -> Value {
        value(ConsoleState::replicas(&self.view))
    }

    fn cache(&self) -> Value {
        value(ConsoleState::cache(&self.view))
    }
}
