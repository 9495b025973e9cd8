//! How much more two workers carry than one: `cargo bench --profile dev --bench workers`.
//!
//! PostgreSQL and pgbench would need more of the processor than pgweir does. So this program is both: clients that send
//! ready-made batches, and servers that give a ready-made answer to each, on one thread. A batch is long, so that its
//! cost is pgweir's and not the pair's; what limits a worker is then its own processor, and what limits two beyond that is
//! what they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that fails says so loudly")]
#![allow(clippy::print_stdout, reason = "its figures")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    env,
    rc::Rc,
    time::{Duration, Instant},
};

use support::{
    Proxy,
    cluster::USER,
    frames::{bind, execute, parse, startup, sync},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{LocalSet, spawn_local},
    time::timeout,
};

const CLIENTS: usize = 16;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
const WARM_UP: Duration = Duration::from_millis(500);
const LONGEST_ANSWER: Duration = Duration::from_secs(10);
/// Executions in a batch.
const EXECUTIONS: usize = 2000;

fn batch() -> Vec<u8> {
    let run = [bind("", &[]), execute("", 0)].concat();
    [parse("", "SELECT abalance FROM pgbench_accounts"), run.repeat(EXECUTIONS), sync()].concat()
}

fn answer() -> Vec<u8> {
    let row = [&b"2\0\0\0\x04"[..], b"D\0\0\0\x0b\0\x01\0\0\0\x010", b"C\0\0\0\x0dSELECT 1\0"].concat();
    [b"1\0\0\0\x04", &row.repeat(EXECUTIONS)[..], READY].concat()
}

const READY: &[u8] = b"Z\0\0\0\x05I";
const NOTHING_HELD: &[u8] =
    b"D\0\0\0\x24\0\x06\0\0\0\x01f\0\0\0\x01f\0\0\0\x01f\0\0\0\x01f\0\0\0\x01f\0\0\0\x01fC\0\0\0\x0dSELECT 1\0";
const WELCOME: &[&[u8]] = &[
    b"R\0\0\0\x08\0\0\0\0",
    b"S\0\0\0\x18server_version\x0015.0\0",
    b"S\0\0\0\x19client_encoding\0UTF8\0",
    b"K\0\0\0\x0c\0\0\0\x01\0\0\0\x02",
    READY,
];

/// Logs everybody in, then answers every batch.
async fn serve(mut stream: TcpStream, answer: Rc<[u8]>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let length = stream.read_u32().await? as usize;
    stream.read_exact(&mut vec![0; length - 4]).await?;
    stream.write_all(&WELCOME.concat()).await?;
    let mut bytes = Vec::with_capacity(1 << 16);
    // A batch is as long as it was sent, so nothing in it has to be read.
    let batch = batch().len();
    while stream.read_buf(&mut bytes).await? > 0 {
        if bytes.first() == Some(&b'Q') {
            // pgweir's own question for what a session holds on to: nothing.
            stream.write_all(&[NOTHING_HELD, READY].concat()).await?;
            bytes.clear();
        } else if bytes.len() >= batch {
            stream.write_all(&answer).await?;
            bytes.drain(..batch);
        }
    }
    Ok(())
}

async fn listen(listener: TcpListener, answer: Rc<[u8]>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        // A connection that ends is no reason to end.
        spawn_local(serve(stream, Rc::clone(&answer)));
    }
}

async fn log_in(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("pgweir accepts");
    stream.set_nodelay(true).unwrap();
    stream.write_all(&startup(&[("user", USER), ("database", "bench")])).await.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(READY) {
        assert!(stream.read_buf(&mut said).await.unwrap() > 0, "login: {}", String::from_utf8_lossy(&said));
    }
    stream
}

/// Batches answered until then.
async fn send(mut stream: TcpStream, until: Instant, batch: Rc<[u8]>, length: usize) -> (TcpStream, u64) {
    let mut answer = vec![0; length];
    let mut count = 0;
    while Instant::now() < until {
        stream.write_all(&batch).await.expect("pgweir reads");
        timeout(LONGEST_ANSWER, stream.read_exact(&mut answer)).await.expect("an answer in time").expect("an answer");
        assert!(answer.ends_with(READY));
        count += 1;
    }
    (stream, count)
}

async fn drive(clients: Vec<TcpStream>, time: Duration, batch: &Rc<[u8]>, length: usize) -> (Vec<TcpStream>, u64) {
    let until = Instant::now() + time;
    let sending: Vec<_> =
        clients.into_iter().map(|client| spawn_local(send(client, until, Rc::clone(batch), length))).collect();
    let (mut clients, mut count) = (Vec::new(), 0);
    for client in sending {
        let (client, sent) = client.await.expect("a client");
        clients.push(client);
        count += sent;
    }
    (clients, count)
}

/// Batches per second, and microseconds of processor time for each.
async fn measure(proxy: &Proxy, batch: &Rc<[u8]>, length: usize) -> (f64, f64) {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(log_in(proxy.port).await);
    }
    let (clients, _) = drive(clients, WARM_UP, batch, length).await;
    let (before, started) = (proxy.processor_time(), Instant::now());
    let (_, count) = drive(clients, ROUND, batch, length).await;
    let used = proxy.processor_time() - before;
    (count as f64 / started.elapsed().as_secs_f64(), used.as_secs_f64() * 1e6 / count as f64)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

fn main() {
    // `cargo test --benches` only asks whether it starts.
    if !env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (batch, answer): (Rc<[u8]>, Rc<[u8]>) = (batch().into(), answer().into());
        let length = answer.len();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        spawn_local(listen(listener, answer));
        let start = |workers| Proxy::builder().database("bench", port, "").set("workers", workers).spawn();
        let proxies = [start(1), start(2)];
        for proxy in &proxies {
            while TcpStream::connect(("127.0.0.1", proxy.port)).await.is_err() {
                tokio::task::yield_now().await;
            }
        }
        let mut rates = [Vec::new(), Vec::new()];
        let mut costs = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for ((proxy, rates), costs) in proxies.iter().zip(&mut rates).zip(&mut costs) {
                let (rate, cost) = measure(proxy, &batch, length).await;
                rates.push(rate);
                costs.push(cost);
            }
        }
        let ratios = rates[1].iter().zip(&rates[0]).map(|(two, one)| two / one).collect();
        let [one, two] = rates.map(median);
        let [cost_of_one, cost_of_two] = costs.map(median);
        println!("{CLIENTS} clients, batches of {EXECUTIONS} executions, medians of {ROUNDS} rounds");
        println!("1 worker:  {one:8.0} batches per second, {cost_of_one:6.1} µs of processor time for each");
        println!("2 workers: {two:8.0} batches per second, {cost_of_two:6.1} µs");
        let spare = 2.0 * cost_of_one / cost_of_two;
        println!("ratio {:.2} on this machine; {spare:.2} by their cost, with a processor for each", median(ratios));
    });
}
