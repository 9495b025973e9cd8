//! COPY in both directions, and values of 200 MB.

use std::pin::pin;

use bytes::Bytes;
use futures_util::{SinkExt, TryStreamExt};
use serde_json::json;
use tokio_postgres::{
    binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream},
    types::Type,
};

use super::{Bench, Outcome, code, count};

const LARGE: usize = 200_000_000;

pub async fn copy_in(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let table = bench.table(&client).await?;
    let mut sink = pin!(client.copy_in(&format!("copy {table} from stdin")).await?);
    for i in 0..5000 {
        sink.send(Bytes::from(format!("{i}\tv{i}\n"))).await?;
    }
    let copied = sink.finish().await?;
    Ok(json!([copied, count(&client, &table).await?]))
}

pub async fn copy_in_binary(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let table = bench.table(&client).await?;
    let sink = client.copy_in(&format!("copy {table} from stdin (format binary)")).await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &[Type::INT4, Type::TEXT]));
    for i in 0..500_i32 {
        writer.as_mut().write(&[&i, &"row"]).await?;
    }
    Ok(json!(writer.finish().await?))
}

pub async fn copy_out(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let stream = client.copy_out("copy (select i, 'v' || i from generate_series(1, 5000) i) to stdout").await?;
    let bytes = stream.try_fold(0, |sum, part| async move { Ok(sum + part.len()) }).await?;
    Ok(json!(bytes))
}

pub async fn copy_out_binary(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let stream = client.copy_out("copy (select generate_series(1, 1000)) to stdout (format binary)").await?;
    let rows: Vec<i32> =
        BinaryCopyOutStream::new(stream, &[Type::INT4]).map_ok(|row| row.get::<i32>(0)).try_collect().await?;
    Ok(json!([rows.len(), rows.iter().sum::<i32>()]))
}

pub async fn a_failed_copy_leaves_the_session_usable(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let table = bench.table(&client).await?;
    let mut sink = pin!(client.copy_in(&format!("copy {table} from stdin")).await?);
    let mut failed = Ok(());
    for i in 0..20_000 {
        failed = sink.send(Bytes::from(format!("{}\tduplicate\n", i % 50))).await;
        if failed.is_err() {
            break;
        }
    }
    let failed = match failed {
        Ok(()) => code(sink.finish().await),
        Err(error) => code::<()>(Err(error)),
    };
    Ok(json!([failed, count(&client, &table).await?]))
}

pub async fn a_dropped_copy_leaves_the_session_usable(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let table = bench.table(&client).await?;
    let sink = client.copy_in::<_, Bytes>(&format!("copy {table} from stdin")).await?;
    drop(sink);
    Ok(json!(count(&client, &table).await?))
}

pub async fn a_result_of_200_mb(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let tens = i32::try_from(LARGE / 10).unwrap();
    let row = client.query_one("select repeat('0123456789', $1)", &[&tens]).await?;
    let text: &str = row.get(0);
    Ok(json!([text.len(), text.bytes().map(u64::from).sum::<u64>()]))
}

pub async fn a_parameter_of_200_mb(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let row = client.query_one("select length($1::bytea)", &[&vec![b'x'; LARGE]]).await?;
    Ok(json!(row.get::<_, i32>(0)))
}
