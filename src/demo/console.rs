//! The figures, asked from pgweir's console.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow};

use super::{
    error::DemoError,
    report::{CacheFigures, Figures, MemberFigures},
};

const REPLICAS: &str = "SHOW REPLICAS";
const CACHE: &str = "SHOW CACHE";
const LONGEST_ANSWER: Duration = Duration::from_secs(5);

/// A session of the console, opened when needed and again after it was lost.
pub(super) struct Console {
    port: u16,
    client: Option<Client>,
}

impl Console {
    pub(super) fn of(port: u16) -> Self {
        Self { port, client: None }
    }

    /// The figures of now; `last` with the reason where the console does not give them.
    pub(super) async fn figures(&mut self, last: Figures) -> Figures {
        let asked = self.ask_all().await;
        asked.unwrap_or_else(|error| Figures { missing: Some(error.to_string()), ..last })
    }

    async fn ask_all(&mut self) -> Result<Figures, DemoError> {
        let members = self.ask(REPLICAS).await?;
        let members = members.iter().map(member).collect::<Result<Vec<_>, _>>()?;
        let mut cache = CacheFigures::default();
        for row in self.ask(CACHE).await? {
            cache.hits += number(&row, CACHE, "hits")? + number(&row, CACHE, "shared_hits").unwrap_or(0);
            cache.misses += number(&row, CACHE, "misses")?;
        }
        Ok(Figures { missing: None, members, cache })
    }

    async fn ask(&mut self, question: &'static str) -> Result<Vec<SimpleQueryRow>, DemoError> {
        let asking = DemoError::asking(question);
        let client = match self.client.take() {
            Some(client) => client,
            None => login(self.port).await.map_err(&asking)?,
        };
        // A console that does not answer in time is asked over a new session next time.
        let answer = timeout(LONGEST_ANSWER, client.simple_query(question)).await;
        let Ok(answer) = answer else {
            return Err(DemoError::Silent { program: question.to_owned(), log: String::new() });
        };
        let messages = answer.map_err(&asking)?;
        self.client = Some(client);
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        };
        Ok(messages.into_iter().filter_map(row).collect())
    }
}

async fn login(port: u16) -> Result<Client, tokio_postgres::Error> {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user("admin").dbname("pgbouncer").connect_timeout(LONGEST_ANSWER);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move {
        // Whoever waits for an answer on `client` is told of the same error.
        let _ended = connection.await;
    });
    Ok(client)
}

fn member(row: &SimpleQueryRow) -> Result<MemberFigures, DemoError> {
    Ok(MemberFigures {
        name: text(row, REPLICAS, "member")?.to_owned(),
        role: text(row, REPLICAS, "role")?.to_owned(),
        weight: number(row, REPLICAS, "weight")?,
        requests: number(row, REPLICAS, "requests")?,
    })
}

fn text<'a>(row: &'a SimpleQueryRow, asked: &'static str, column: &'static str) -> Result<&'a str, DemoError> {
    // NULL reads as empty: the primary has no weight.
    row.try_get(column).map(Option::unwrap_or_default).map_err(|_| DemoError::Column { asked, column })
}

fn number(row: &SimpleQueryRow, asked: &'static str, column: &'static str) -> Result<u64, DemoError> {
    Ok(text(row, asked, column)?.parse().unwrap_or(0))
}
