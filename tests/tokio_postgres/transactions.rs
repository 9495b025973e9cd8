//! Transactions, savepoints, cursors and portals.

use serde_json::json;
use tokio_postgres::IsolationLevel;

use super::{Bench, Outcome, code, count, shown};

pub async fn a_transaction_commits(bench: Bench) -> Outcome {
    let mut client = bench.connect().await?;
    let table = bench.table(&client).await?;
    let transaction = client.transaction().await?;
    let insert = format!("insert into {table} values ($1, $2)");
    let inserted = transaction.execute(&insert, &[&1_i32, &"a"]).await?;
    transaction.commit().await?;
    Ok(json!([inserted, count(&bench.connect().await?, &table).await?]))
}

pub async fn a_dropped_transaction_rolls_back(bench: Bench) -> Outcome {
    let mut client = bench.connect().await?;
    let table = bench.table(&client).await?;
    let transaction = client.transaction().await?;
    transaction.batch_execute(&format!("insert into {table} values (1, 'a')")).await?;
    drop(transaction);
    Ok(json!(count(&client, &table).await?))
}

pub async fn a_savepoint_rolls_back_alone(bench: Bench) -> Outcome {
    let mut client = bench.connect().await?;
    let table = bench.table(&client).await?;
    let mut outer = client.transaction().await?;
    outer.batch_execute(&format!("insert into {table} values (1, 'outer')")).await?;
    let inner = outer.savepoint("inner").await?;
    let failed = code(inner.batch_execute(&format!("insert into {table} values (1, 'twice')")).await);
    inner.rollback().await?;
    outer.batch_execute(&format!("insert into {table} values (2, 'after')")).await?;
    outer.commit().await?;
    Ok(json!([failed, count(&client, &table).await?]))
}

pub async fn isolation_levels_and_read_only(bench: Bench) -> Outcome {
    let mut client = bench.connect().await?;
    let table = bench.table(&client).await?;
    let builder = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
    let transaction = builder.read_only(true).start().await?;
    let level: String = transaction.query_one("show transaction_isolation", &[]).await?.get(0);
    let failed = code(transaction.execute(&format!("insert into {table} values (1, 'x')"), &[]).await);
    transaction.rollback().await?;
    Ok(json!([level, failed, shown(&client, "transaction_read_only").await?]))
}

pub async fn a_failed_transaction_refuses_until_rollback(bench: Bench) -> Outcome {
    let mut client = bench.connect().await?;
    let transaction = client.transaction().await?;
    let first = code(transaction.query("select 1/0", &[]).await);
    let second = code(transaction.query("select 1", &[]).await);
    transaction.rollback().await?;
    Ok(json!([first, second, code(client.query("select 1", &[]).await)]))
}

pub async fn a_failed_commit(bench: Bench) -> Outcome {
    let mut client = bench.connect().await?;
    let table = bench.table(&client).await?;
    let deferred = format!("alter table {table} add unique (v) deferrable initially deferred");
    client.batch_execute(&deferred).await?;
    let transaction = client.transaction().await?;
    transaction.batch_execute(&format!("insert into {table} values (1, 'a'), (2, 'a')")).await?;
    let failed = code(transaction.commit().await);
    Ok(json!([failed, count(&client, &table).await?]))
}

pub async fn portals_in_portions(bench: Bench) -> Outcome {
    let mut client = bench.connect().await?;
    let transaction = client.transaction().await?;
    let portal = transaction.bind("select generate_series(1, 10)", &[]).await?;
    let mut portions = Vec::new();
    loop {
        let rows = transaction.query_portal(&portal, 4).await?;
        portions.push(rows.len());
        if rows.is_empty() || portions.len() > 5 {
            break;
        }
    }
    transaction.commit().await?;
    Ok(json!(portions))
}

pub async fn a_sql_cursor(bench: Bench) -> Outcome {
    let mut client = bench.connect().await?;
    let transaction = client.transaction().await?;
    transaction.batch_execute("declare c cursor for select generate_series(1, 10)").await?;
    let first = transaction.query("fetch 3 from c", &[]).await?.len();
    let rest = transaction.query("fetch all from c", &[]).await?.len();
    transaction.commit().await?;
    Ok(json!([first, rest, code(client.query("fetch 1 from c", &[]).await)]))
}
