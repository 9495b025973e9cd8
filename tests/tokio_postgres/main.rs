//! tokio-postgres sees the same server through pgweir, in transaction mode, as directly.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test fails loudly, and has no outside"
)]

mod copying;
mod session_state;
mod statements;
#[path = "../support/mod.rs"]
mod support;
mod transactions;

use std::{collections::BTreeMap, future::Future, pin::Pin, time::Duration};

use serde_json::{Value, json};
use support::{Proxy, cluster, proxy::Builder, sessions::try_connect};
use tokio_postgres::{Client, Config, Error};

const CLIENTS: u32 = 20;

/// One client's means.
#[derive(Clone)]
struct Bench {
    config: Config,
    client: u32,
}

type Outcome = Result<Value, Error>;
type Behaviour = fn(Bench) -> Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Behaviours under the names of their functions.
macro_rules! behaviours {
    ($($file:ident::$name:ident),* $(,)?) => {
        &[$((stringify!($name), (|bench| Box::pin($file::$name(bench))) as Behaviour)),*]
    };
}

const ALONE: &[(&str, Behaviour)] = behaviours![
    statements::simple_queries,
    statements::queries_with_parameters,
    statements::a_prepared_statement_is_reused,
    statements::a_prepared_statement_knows_its_types,
    statements::a_dropped_statement_is_closed,
    statements::many_statements,
    statements::statements_in_a_pipeline,
    statements::an_error_in_a_pipeline_hits_only_its_statement,
    transactions::a_transaction_commits,
    transactions::a_dropped_transaction_rolls_back,
    transactions::a_savepoint_rolls_back_alone,
    transactions::isolation_levels_and_read_only,
    transactions::a_failed_transaction_refuses_until_rollback,
    transactions::a_failed_commit,
    transactions::portals_in_portions,
    statements::binary_values,
    statements::arrays_and_json,
    statements::null_and_empty_values,
    statements::unicode_text,
    statements::several_statements_in_one_query,
    statements::an_error_among_several_statements,
    copying::copy_in,
    copying::copy_in_binary,
    copying::copy_out,
    copying::copy_out_binary,
    copying::a_failed_copy_leaves_the_session_usable,
    copying::a_dropped_copy_leaves_the_session_usable,
    session_state::a_statement_timeout_fires,
    session_state::a_query_is_cancelled,
    session_state::a_notification_to_itself,
    session_state::notices_arrive,
    statements::errors_carry_their_details,
    session_state::a_temporary_table_lasts_as_long_as_the_session,
    session_state::a_setting_lasts_as_long_as_the_session,
    session_state::a_time_zone_follows_the_session,
    session_state::settings_of_the_connection,
    session_state::an_advisory_lock_is_kept_across_statements,
    session_state::a_sequence_is_remembered_by_its_transaction,
    session_state::sql_prepare_and_execute,
    transactions::a_sql_cursor,
    statements::rows_are_streamed,
    statements::typed_queries,
];

const TOGETHER: &[(&str, Behaviour)] = behaviours![
    session_state::a_notification_from_another_session,
    session_state::an_advisory_lock_keeps_another_session_out,
    session_state::a_row_lock_is_waited_for,
    session_state::a_serializable_conflict_is_found,
];

const LARGE_VALUES: &[(&str, Behaviour)] = behaviours![copying::a_result_of_200_mb, copying::a_parameter_of_200_mb,];

impl Bench {
    async fn connect(&self) -> Result<Client, Error> {
        try_connect(&self.config).await
    }

    async fn table(&self, client: &Client) -> Result<String, Error> {
        let name = format!("tokio_t_{}", self.client);
        let sql = format!("drop table if exists {name}; create table {name}(id int primary key, v text)");
        client.batch_execute(&sql).await?;
        Ok(name)
    }

    /// An advisory lock key that only this client uses.
    fn key(&self) -> i64 {
        4_000_000 + i64::from(self.client)
    }
}

fn code<T>(outcome: Result<T, Error>) -> String {
    match outcome {
        Ok(_) => "no error".to_owned(),
        Err(error) => error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned()),
    }
}

async fn count(client: &Client, table: &str) -> Result<i64, Error> {
    Ok(client.query_one(&format!("select count(*) from {table}"), &[]).await?.get(0))
}

async fn shown(client: &Client, name: &str) -> Result<String, Error> {
    Ok(client.query_one(&format!("show {name}"), &[]).await?.get(0))
}

/// All behaviours one after the other, each client starting elsewhere so that neighbours differ.
async fn outcomes(bench: Bench, behaviours: &[(&'static str, Behaviour)]) -> BTreeMap<&'static str, Value> {
    let start = bench.client as usize * 7 % behaviours.len();
    let mut seen = BTreeMap::new();
    for (name, behaviour) in behaviours[start..].iter().chain(&behaviours[..start]) {
        let outcome = tokio::time::timeout(Duration::from_secs(120), behaviour(bench.clone())).await;
        let outcome = match outcome {
            Ok(Ok(value)) => value,
            Ok(Err(error)) => json!({ "failed": format!("{error:?}") }),
            Err(_) => json!("no end"),
        };
        seen.insert(*name, outcome);
    }
    seen
}

async fn compare(
    behaviours: &'static [(&'static str, Behaviour)],
    clients: u32,
    configure: impl FnOnce(Builder, &str) -> Builder,
) {
    let (direct, pooled) = (cluster().database(), cluster().database());
    let config = cluster().primary.config(&direct);
    let expected = outcomes(Bench { config, client: 0 }, behaviours).await;
    let proxy = configure(Proxy::of(cluster(), &pooled), &pooled).start();
    let tasks: Vec<_> = (0..clients)
        .map(|client| tokio::spawn(outcomes(Bench { config: proxy.config(&pooled), client }, behaviours)))
        .collect();
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(task.await.unwrap());
    }
    let mut differences = String::new();
    for (name, expected) in &expected {
        let different: Vec<_> = seen.iter().map(|seen| &seen[name]).filter(|seen| *seen != expected).collect();
        if let Some(first) = different.first() {
            let clients = different.len();
            differences += &format!("{name}, {clients} clients:\n  directly {expected}\n  pgweir   {first}\n");
        }
    }
    assert!(differences.is_empty(), "{differences}{}", proxy.last_words());
    proxy.wait_until_idle(&pooled);
}

#[test]
fn more_than_thirty_behaviours_are_compared() {
    assert!(ALONE.len() > 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_sees_the_same_over_two_server_connections() {
    compare(ALONE, CLIENTS, |builder, _| builder.set("default_pool_size", 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_sees_the_same_when_sessions_act_on_each_other() {
    compare(TOGETHER, CLIENTS, |builder, _| builder.set("default_pool_size", 40)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_sees_the_same_with_replicas_and_cache() {
    compare(ALONE, 4, |builder, database| {
        let replicas = [(&cluster().replicas[0], 2), (&cluster().replicas[1], 1)];
        let builder = builder.set("default_pool_size", 4).replicas(database, &replicas).cached();
        builder.section("routing", "read_your_writes", "database")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_moves_values_of_200_mb() {
    compare(LARGE_VALUES, 2, |builder, _| builder.set("default_pool_size", 2)).await;
}
