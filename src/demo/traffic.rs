//! Sample traffic: customers who look around, a few who buy, dashboards on a wall.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Config, Error, NoTls, Statement, types::ToSql};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{error::describe, latency::Latency, shop};

const READERS: u64 = 12;
const WRITERS: u64 = 3;
/// A statement that takes longer counts as failed.
const LONGEST_STATEMENT: Duration = Duration::from_secs(15);
/// Before a lost connection is opened again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// Reasons kept for the report; the rest is only counted.
const MISTAKES_KEPT: usize = 5;

/// What came of the statements.
#[derive(Default)]
pub(super) struct Tally {
    sent: AtomicU64,
    failed: AtomicU64,
    latency: Latency,
    mistakes: Mutex<Vec<String>>,
}

impl Tally {
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn latency(&self) -> &Latency {
        &self.latency
    }

    pub(super) fn mistakes(&self) -> Vec<String> {
        self.mistakes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn succeeded(&self, latency: Duration) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.latency.record(latency);
    }

    pub(super) fn failed_because(&self, act: &str, reason: &str) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut mistakes = self.mistakes.lock().unwrap_or_else(PoisonError::into_inner);
        if mistakes.len() < MISTAKES_KEPT {
            mistakes.push(format!("{act}: {reason}"));
        }
    }
}

/// What a client does; writers are numbered.
#[derive(Clone, Copy)]
enum Role {
    Reader,
    Writer(u64),
}

/// Clients at work.
pub(super) struct Traffic {
    tally: Arc<Tally>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Traffic {
    pub(super) fn start(port: u16) -> Self {
        let traffic = Self { tally: Arc::default(), tasks: TaskTracker::new(), stop: CancellationToken::new() };
        for number in 0..READERS + WRITERS {
            let (tally, stop) = (Arc::clone(&traffic.tally), traffic.stop.clone());
            let role = number.checked_sub(READERS).map_or(Role::Reader, Role::Writer);
            traffic.tasks.spawn(async move {
                let mut draws = Draws::of(number);
                while !stop.is_cancelled() {
                    if serve(port, role, &mut draws, &tally, &stop).await.is_none() {
                        sleep(RECONNECT_PAUSE).await;
                    }
                }
            });
        }
        traffic.tasks.close();
        traffic
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Every client finishes what it is at.
    pub(super) async fn stop(self) -> Arc<Tally> {
        self.stop.cancel();
        self.tasks.wait().await;
        self.tally
    }
}

/// Does a client get an answer from the shop?
pub(super) async fn is_served(port: u16) -> bool {
    let asked = async {
        let client = connect(port).await?;
        client.simple_query("SELECT id FROM category LIMIT 1").await
    };
    timeout(LONGEST_STATEMENT, asked).await.is_ok_and(|answer| answer.is_ok())
}

/// One client until it is told to stop or loses its connection (`None`).
async fn serve(port: u16, role: Role, draws: &mut Draws, tally: &Tally, stop: &CancellationToken) -> Option<()> {
    let shopper = Shopper::enter(port, tally).await?;
    while !stop.is_cancelled() {
        match role {
            Role::Writer(number) => {
                shopper.buy(number, draws).await?;
                sleep(Duration::from_millis(400 + draws.below(400))).await;
            }
            Role::Reader => {
                shopper.look(draws).await?;
                sleep(Duration::from_millis(1 + draws.below(8))).await;
            }
        }
        if shopper.client.is_closed() {
            return None;
        }
    }
    Some(())
}

async fn connect(port: u16) -> Result<Client, Error> {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user("shop").dbname(shop::NAME).connect_timeout(LONGEST_STATEMENT);
    let (client, connection) = config.application_name("pgweir-demo").connect(NoTls).await?;
    tokio::spawn(async move {
        // Whoever waits for an answer on `client` is told of the same error.
        let _ended = connection.await;
    });
    Ok(client)
}

/// One connection with its prepared statements. Its methods return `None` after a failure, which is counted already.
struct Shopper<'a> {
    client: Client,
    tally: &'a Tally,
    product: Statement,
    page: Statement,
    customer: Statement,
    dashboards: [Statement; 3],
    order: Statement,
    line: Statement,
    lines: Statement,
    price: Statement,
}

impl<'a> Shopper<'a> {
    async fn enter(port: u16, tally: &'a Tally) -> Option<Self> {
        let prepared = async {
            let client = connect(port).await?;
            let [sales, stock, cities] = shop::DASHBOARDS;
            Ok::<_, Error>(Self {
                tally,
                product: client.prepare(shop::PRODUCT_BY_KEY).await?,
                page: client.prepare(shop::CATEGORY_PAGE).await?,
                customer: client.prepare(shop::CUSTOMER_WITH_ORDERS).await?,
                dashboards: [client.prepare(sales).await?, client.prepare(stock).await?, client.prepare(cities).await?],
                order: client.prepare(shop::PLACE_ORDER).await?,
                line: client.prepare(shop::ADD_LINE).await?,
                lines: client.prepare(shop::LINES_OF_ORDER).await?,
                price: client.prepare(shop::CHANGE_PRICE).await?,
                client,
            })
        };
        match timeout(LONGEST_STATEMENT, prepared).await {
            Ok(Ok(shopper)) => return Some(shopper),
            Ok(Err(error)) => tally.failed_because("connect", &describe(&error)),
            Err(_) => tally.failed_because("connect", "no answer"),
        }
        None
    }

    /// One read, or a few in a read-only transaction.
    async fn look(&self, draws: &mut Draws) -> Option<()> {
        match draws.below(100) {
            0..40 => self.rows("product by key", &self.product, &[&product(draws)]).await.map(drop),
            40..60 => self.page(draws).await,
            60..70 => self.dashboard(draws).await,
            70..85 => {
                self.rows("customer with orders", &self.customer, &[&one_of(draws, shop::CUSTOMERS)]).await.map(drop)
            }
            85..93 => {
                let text = shop::search(1 + draws.below(shop::CATEGORIES), 500 * (1 + draws.below(18)));
                self.timed("search", self.client.simple_query(&text)).await.map(drop)
            }
            _ => self.look_in_a_transaction(draws).await,
        }
    }

    async fn page(&self, draws: &mut Draws) -> Option<()> {
        let (category, offset) = (one_of(draws, shop::CATEGORIES), 20 * i64::from(small(draws, 10)));
        self.rows("category page", &self.page, &[&category, &offset]).await.map(drop)
    }

    async fn dashboard(&self, draws: &mut Draws) -> Option<()> {
        let [sales, stock, cities] = &self.dashboards;
        let statement = match draws.below(3) {
            0 => sales,
            1 => stock,
            _ => cities,
        };
        self.rows("dashboard", statement, &[]).await.map(drop)
    }

    async fn look_in_a_transaction(&self, draws: &mut Draws) -> Option<()> {
        self.timed("begin", self.client.batch_execute("BEGIN READ ONLY")).await?;
        self.rows("product in a transaction", &self.product, &[&product(draws)]).await?;
        self.page(draws).await?;
        self.timed("commit", self.client.batch_execute("COMMIT")).await
    }

    /// An order of a few lines, or another price; each is read back at once and must be there.
    async fn buy(&self, writer: u64, draws: &mut Draws) -> Option<()> {
        if draws.below(12) == 0 {
            return self.change_a_price(writer, draws).await;
        }
        let (customer, items) = (one_of(draws, shop::CUSTOMERS), 1 + small(draws, 4));
        self.timed("begin", self.client.batch_execute("BEGIN")).await?;
        let placed = self.rows("place order", &self.order, &[&customer]).await?;
        let order: i64 = placed.first()?.try_get(0).ok()?;
        let first = product(draws);
        for item in 0..items {
            let product = 1 + (first + item) % small_limit(shop::PRODUCTS);
            self.rows("order line", &self.line, &[&order, &product, &(1 + item)]).await?;
        }
        self.timed("commit", self.client.batch_execute("COMMIT")).await?;
        let found = self.rows("read the order back", &self.lines, &[&order]).await?;
        let found: Option<i64> = found.first().and_then(|row| row.try_get(0).ok());
        self.expect("order", found, Some(i64::from(items)));
        Some(())
    }

    /// Each writer has products of its own: nobody else may change the price before it is read back.
    async fn change_a_price(&self, writer: u64, draws: &mut Draws) -> Option<()> {
        let product = 1 + small_limit(writer + WRITERS * draws.below(shop::PRODUCTS / WRITERS));
        let cents = 100 + small(draws, 9900);
        self.rows("change a price", &self.price, &[&product, &cents]).await?;
        let found = self.rows("read the price back", &self.product, &[&product]).await?;
        let found: Option<i32> = found.first().and_then(|row| row.try_get(2).ok());
        self.expect("price", found, Some(cents));
        Some(())
    }

    /// A session reads its own writes.
    fn expect<T: PartialEq + std::fmt::Debug>(&self, what: &str, found: T, written: T) {
        if found != written {
            self.tally.failed_because("read of an own write", &format!("{what} {found:?} instead of {written:?}"));
        }
    }

    async fn rows(
        &self,
        act: &str,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Option<Vec<tokio_postgres::Row>> {
        self.timed(act, self.client.query(statement, parameters)).await
    }

    async fn timed<T>(&self, act: &str, statement: impl Future<Output = Result<T, Error>>) -> Option<T> {
        let sent = Instant::now();
        match timeout(LONGEST_STATEMENT, statement).await {
            Ok(Ok(answer)) => {
                self.tally.succeeded(sent.elapsed());
                return Some(answer);
            }
            Ok(Err(error)) => self.tally.failed_because(act, &describe(&error)),
            Err(_) => self.tally.failed_because(act, "no answer"),
        }
        None
    }
}

/// Half of the looks go to a few popular products.
fn product(draws: &mut Draws) -> i32 {
    if draws.below(2) == 0 { one_of(draws, 200) } else { one_of(draws, shop::PRODUCTS) }
}

fn one_of(draws: &mut Draws, count: u64) -> i32 {
    1 + small(draws, count)
}

fn small(draws: &mut Draws, bound: u64) -> i32 {
    i32::try_from(draws.below(bound)).unwrap_or(0)
}

fn small_limit(bound: u64) -> i32 {
    i32::try_from(bound).unwrap_or(i32::MAX)
}

/// xorshift64: the same traffic in every demonstration.
struct Draws(u64);

impl Draws {
    /// The constant spreads small numbers over all bits; no seed may be 0.
    fn of(client: u64) -> Self {
        Self((client + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.checked_rem(bound).unwrap_or(0)
    }
}
