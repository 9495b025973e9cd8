//! What a session keeps, and what sessions do to each other.

use std::{future::poll_fn, pin::pin, time::Duration};

use serde_json::json;
use tokio::{io::AsyncReadExt, net::TcpStream, sync::mpsc, time::timeout};
use tokio_postgres::{AsyncMessage, Client, Error, IsolationLevel, NoTls};

use super::{Bench, Outcome, code, shown, support::sessions::try_connect};

/// A session whose asynchronous messages can be heard.
async fn listening(bench: &Bench) -> Result<(Client, mpsc::Receiver<String>), Error> {
    let (client, mut connection) = bench.config.connect(NoTls).await?;
    let (sender, heard) = mpsc::channel(100);
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            let text = match message {
                AsyncMessage::Notification(notification) => notification.payload().to_owned(),
                AsyncMessage::Notice(notice) => format!("{}: {}", notice.severity(), notice.message()),
                _ => continue,
            };
            drop(sender.send(text).await);
        }
    });
    Ok((client, heard))
}

pub async fn a_statement_timeout_fires(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    client.batch_execute("set statement_timeout to 50").await?;
    let failed = code(client.query("select pg_sleep(60)", &[]).await);
    Ok(json!([failed, shown(&client, "statement_timeout").await?]))
}

/// A query is cancelled, and nothing but that query: each request is seen to its end before the next statement.
pub async fn a_query_is_cancelled(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let token = client.cancel_token();
    let mut sleeping = pin!(client.query("select pg_sleep(60)", &[]));
    let cancelled = loop {
        // The query may not have arrived when the first request does.
        let mut stream = TcpStream::connect(("127.0.0.1", bench.config.get_ports()[0])).await.unwrap();
        token.cancel_query_raw(&mut stream, NoTls).await?;
        // The server closes the connection when it has passed the request on.
        stream.read_to_end(&mut Vec::new()).await.ok();
        if let Ok(outcome) = timeout(Duration::from_millis(20), &mut sleeping).await {
            break code(outcome);
        }
    };
    let next: i32 = client.query_one("select 1", &[]).await?.get(0);
    Ok(json!([cancelled, next]))
}

pub async fn a_notification_to_itself(bench: Bench) -> Outcome {
    let (client, mut heard) = listening(&bench).await?;
    let channel = format!("tokio_self_{}", bench.client);
    client.batch_execute(&format!("listen {channel}; notify {channel}, 'hello'")).await?;
    Ok(json!(heard.recv().await))
}

pub async fn notices_arrive(bench: Bench) -> Outcome {
    let (client, mut heard) = listening(&bench).await?;
    client.batch_execute("do $$ begin raise notice 'one'; raise warning 'two'; end $$").await?;
    Ok(json!([heard.recv().await, heard.recv().await]))
}

pub async fn a_temporary_table_lasts_as_long_as_the_session(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    client.batch_execute("create temp table scratch(v int)").await?;
    client.execute("insert into scratch values (1), (2)", &[]).await?;
    let sum: i64 = client.query_one("select sum(v) from scratch", &[]).await?.get(0);
    drop(client);
    let other = bench.connect().await?;
    Ok(json!([sum, code(other.query("select * from scratch", &[]).await)]))
}

pub async fn a_setting_lasts_as_long_as_the_session(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    client.batch_execute("set work_mem to '7777kB'").await?;
    let inside = [shown(&client, "work_mem").await?, shown(&client, "work_mem").await?];
    client.batch_execute("discard all").await?;
    Ok(json!([inside, shown(&client, "work_mem").await?]))
}

pub async fn a_time_zone_follows_the_session(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    client.batch_execute("set timezone to 'Asia/Tokyo'").await?;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let row = client.query_one("select '2020-01-01 00:00:00+00'::timestamptz::text", &[]).await?;
        seen.push(row.get::<_, String>(0));
    }
    Ok(json!(seen))
}

pub async fn settings_of_the_connection(bench: Bench) -> Outcome {
    let mut config = bench.config.clone();
    config.application_name("named").options("-c TimeZone=Asia/Tokyo");
    let client = try_connect(&config).await?;
    Ok(json!([shown(&client, "application_name").await?, shown(&client, "timezone").await?]))
}

pub async fn an_advisory_lock_is_kept_across_statements(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let locked: bool = client.query_one("select pg_try_advisory_lock($1)", &[&bench.key()]).await?.get(0);
    client.query("select 1", &[]).await?;
    let unlock = "select pg_advisory_unlock($1)";
    let first: bool = client.query_one(unlock, &[&bench.key()]).await?.get(0);
    let second: bool = client.query_one(unlock, &[&bench.key()]).await?.get(0);
    Ok(json!([locked, first, second]))
}

pub async fn a_sequence_is_remembered_by_its_transaction(bench: Bench) -> Outcome {
    let mut client = bench.connect().await?;
    let name = format!("tokio_sequence_{}", bench.client);
    client.batch_execute(&format!("drop sequence if exists {name}; create sequence {name} start 5")).await?;
    let transaction = client.transaction().await?;
    transaction.query(&format!("select nextval('{name}')"), &[]).await?;
    let last = transaction.query_one("select lastval()", &[]).await?.get::<_, i64>(0);
    transaction.commit().await?;
    Ok(json!(last))
}

pub async fn sql_prepare_and_execute(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    client.batch_execute("prepare tripled(int) as select $1 * 3").await?;
    let mut seen = Vec::new();
    for i in 0..5 {
        seen.push(client.query_one(&format!("execute tripled({i})"), &[]).await?.get::<_, i32>(0));
    }
    client.batch_execute("deallocate tripled").await?;
    Ok(json!([seen, code(client.query("execute tripled(1)", &[]).await)]))
}

pub async fn a_notification_from_another_session(bench: Bench) -> Outcome {
    let (listener, mut heard) = listening(&bench).await?;
    let mut speaker = bench.connect().await?;
    let channel = format!("tokio_other_{}", bench.client);
    listener.batch_execute(&format!("listen {channel}")).await?;
    let transaction = speaker.transaction().await?;
    transaction.batch_execute(&format!("notify {channel}, 'one'; notify {channel}, 'two'")).await?;
    let silent = heard.is_empty();
    transaction.commit().await?;
    Ok(json!([silent, heard.recv().await, heard.recv().await]))
}

pub async fn an_advisory_lock_keeps_another_session_out(bench: Bench) -> Outcome {
    let (one, other) = (bench.connect().await?, bench.connect().await?);
    let attempt = "select pg_try_advisory_lock($1)";
    let first: bool = one.query_one(attempt, &[&bench.key()]).await?.get(0);
    let second: bool = other.query_one(attempt, &[&bench.key()]).await?.get(0);
    one.query("select pg_advisory_unlock($1)", &[&bench.key()]).await?;
    let third: bool = other.query_one(attempt, &[&bench.key()]).await?.get(0);
    Ok(json!([first, second, third]))
}

pub async fn a_row_lock_is_waited_for(bench: Bench) -> Outcome {
    let (mut holder, waiter) = (bench.connect().await?, bench.connect().await?);
    let table = bench.table(&holder).await?;
    holder.batch_execute(&format!("insert into {table} values (1, 'first')")).await?;
    let transaction = holder.transaction().await?;
    transaction.batch_execute(&format!("update {table} set v = v || '+holder'")).await?;
    let update = format!("update {table} set v = v || '+waiter'");
    let (waited, committed) = tokio::join!(waiter.execute(&update, &[]), transaction.commit());
    committed?;
    waited?;
    let row = holder.query_one(&format!("select v from {table}"), &[]).await?;
    Ok(json!(row.get::<_, String>(0)))
}

pub async fn a_serializable_conflict_is_found(bench: Bench) -> Outcome {
    let (mut one, mut other) = (bench.connect().await?, bench.connect().await?);
    let table = bench.table(&one).await?;
    one.batch_execute(&format!("insert into {table} values (1, 'a'), (2, 'b')")).await?;
    let serializable = IsolationLevel::Serializable;
    let first = one.build_transaction().isolation_level(serializable).start().await?;
    let second = other.build_transaction().isolation_level(serializable).start().await?;
    for transaction in [&first, &second] {
        transaction.query(&format!("select * from {table}"), &[]).await?;
    }
    first.batch_execute(&format!("update {table} set v = 'x' where id = 1")).await?;
    first.commit().await?;
    let update = second.batch_execute(&format!("update {table} set v = 'y' where id = 2")).await;
    match update {
        Ok(()) => Ok(json!(code(second.commit().await))),
        Err(error) => Ok(json!(code::<()>(Err(error)))),
    }
}
