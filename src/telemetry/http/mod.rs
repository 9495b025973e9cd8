//! Metrics, health and the dashboard over HTTP. What is shown comes from one trait; this module
//! knows paths and formats only.

mod connection;
mod page;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::{connection::BoundedListener, page::Page};

/// Answers to `/api/queries` and `/api/slow` are cut here.
const ROWS_LIMIT: usize = 1000;
const ROWS_DEFAULT: usize = 50;

/// After cancellation, how long running answers may take to finish.
const DRAIN: Duration = Duration::from_secs(2);

/// May traffic be sent here?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// A primary can be reached for every database asked about.
    Ready,
    /// Not now.
    NotReady,
    /// `?db=` names a database that is not configured.
    UnknownDatabase,
}

/// What the pages show; implemented by the composition root. No call may block.
///
/// `/` polls `overview`, an object with `version`, `uptime_seconds` and the arrays `pools`,
/// `replicas`, `cache`, `queries` and `slow`: rows as the console's row types serialise.
pub trait HttpState: Send + Sync + 'static {
    /// Prometheus text.
    fn metrics(&self) -> String;
    /// `None` asks about every database configured by name.
    fn readiness(&self, database: Option<&str>) -> Readiness;
    /// All that the dashboard shows.
    fn overview(&self) -> Value;
    /// Query shapes, the most expensive first.
    fn queries(&self, limit: usize) -> Value;
    /// Slow requests, the latest first.
    fn slow(&self, limit: usize) -> Value;
    /// Members and their figures.
    fn replicas(&self) -> Value;
    /// The cache and its figures.
    fn cache(&self) -> Value;
}

type Shared = State<Arc<dyn HttpState>>;

/// Serves until `stop` is cancelled and running answers are done or late.
pub async fn serve(listener: TcpListener, state: Arc<dyn HttpState>, stop: CancellationToken) {
    let server = axum::serve(BoundedListener::new(listener), router(state))
        .with_graceful_shutdown(stop.clone().cancelled_owned());
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        // Both branches end the server; neither is resumed.
        result = server => if let Err(error) = result {
            tracing::error!(%error, "http server stopped");
        },
        () = late => {}
    }
}

/// Binds the address of `[http] listen`.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

fn router(state: Arc<dyn HttpState>) -> Router {
    let page = Arc::new(Page::new());
    Router::new()
        .route("/", get(move || async move { page.response() }))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/api/overview", get(|State(s): Shared| async move { json(&s.overview()) }))
        .route("/api/queries", get(queries))
        .route("/api/slow", get(slow))
        .route("/api/replicas", get(|State(s): Shared| async move { json(&s.replicas()) }))
        .route("/api/cache", get(|State(s): Shared| async move { json(&s.cache()) }))
        .with_state(state)
}

#[derive(Deserialize)]
struct Database {
    db: Option<String>,
}

#[derive(Deserialize)]
struct Limit {
    limit: Option<usize>,
}

impl Limit {
    fn rows(&self) -> usize {
        self.limit.unwrap_or(ROWS_DEFAULT).min(ROWS_LIMIT)
    }
}

async fn metrics(State(state): Shared) -> Response {
    let format = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (format, state.metrics()).into_response()
}

async fn readyz(State(state): Shared, Query(query): Query<Database>) -> Response {
    match state.readiness(query.db.as_deref()) {
        Readiness::Ready => (StatusCode::OK, "ready\n"),
        Readiness::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        Readiness::UnknownDatabase => (StatusCode::NOT_FOUND, "no such database\n"),
    }
    .into_response()
}

async fn queries(State(state): Shared, Query(limit): Query<Limit>) -> Response {
    json(&state.queries(limit.rows()))
}

async fn slow(State(state): Shared, Query(limit): Query<Limit>) -> Response {
    json(&state.slow(limit.rows()))
}

fn json(value: &Value) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, value.to_string()).into_response()
}

#[cfg(test)]
mod tests;
