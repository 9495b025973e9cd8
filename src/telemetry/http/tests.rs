use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

struct Shown;

impl HttpState for Shown {
    fn metrics(&self) -> String {
        "pgweir_clients 3\n".to_owned()
    }
    fn readiness(&self, database: Option<&str>) -> Readiness {
        match database {
            None => Readiness::NotReady,
            Some("shop") => Readiness::Ready,
            Some(_) => Readiness::UnknownDatabase,
        }
    }
    fn overview(&self) -> Value {
        json!({ "version": "<script>" })
    }
    fn queries(&self, limit: usize) -> Value {
        json!([{ "limit": limit }])
    }
    fn slow(&self, limit: usize) -> Value {
        json!([{ "limit": limit }])
    }
    fn replicas(&self) -> Value {
        json!([])
    }
    fn cache(&self) -> Value {
        json!([])
    }
}

/// Status line and body of the answer to one request.
async fn get(path: &str) -> (String, String) {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(listener, Arc::new(Shown), stop.clone()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    stop.cancel();
    server.await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[track_caller]
fn check((head, body): (String, String), status: u16, kind: &str, expected: &str) {
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    assert!(head.to_lowercase().contains(&format!("content-type: {kind}")), "{head}");
    assert_eq!(body, expected);
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    check(get("/metrics").await, 200, "text/plain; version=0.0.4", "pgweir_clients 3\n");
}

#[tokio::test]
async fn a_living_process_is_healthy_even_when_it_is_not_ready() {
    check(get("/healthz").await, 200, "text/plain", "ok\n");
    check(get("/readyz").await, 503, "text/plain", "not ready\n");
}

#[tokio::test]
async fn readiness_can_be_asked_for_one_database() {
    check(get("/readyz?db=shop").await, 200, "text/plain", "ready\n");
    check(get("/readyz?db=none").await, 404, "text/plain", "no such database\n");
}

#[tokio::test]
async fn the_api_answers_json_and_bounds_how_much() {
    let kind = "application/json";
    check(get("/api/overview").await, 200, kind, r#"{"version":"<script>"}"#);
    check(get("/api/queries").await, 200, kind, r#"[{"limit":50}]"#);
    check(get("/api/queries?limit=7").await, 200, kind, r#"[{"limit":7}]"#);
    check(get("/api/slow?limit=1000000").await, 200, kind, r#"[{"limit":1000}]"#);
    check(get("/api/replicas").await, 200, kind, "[]");
    check(get("/api/cache").await, 200, kind, "[]");
}

#[tokio::test]
async fn the_page_runs_its_own_script_only() {
    let (head, body) = get("/").await;
    assert!(head.to_lowercase().contains("content-security-policy: default-src 'none'"), "{head}");
    assert!(head.contains("script-src 'sha256-"), "{head}");
    assert!(body.starts_with("<!doctype html>"));
}

#[tokio::test]
async fn nonsense_is_answered_not_served() {
    let (head, _) = get("/api/queries?limit=x").await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    let (head, _) = get("/nothing").await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
}

#[tokio::test]
async fn a_silent_connection_does_not_hold_up_the_end() {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(listener, Arc::new(Shown), stop.clone()));
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.write_all(b"GET /metrics HTT").await.unwrap();
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), server).await.unwrap().unwrap();
}
