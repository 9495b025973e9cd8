//! Statements of both protocols, their parameters and their results.

use std::pin::pin;

use futures_util::{StreamExt, future};
use serde_json::{Value, json};
use tokio_postgres::{Error, SimpleQueryMessage, types::Type};

use super::{Bench, Outcome, code, count};

pub async fn simple_queries(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let mut seen = Vec::new();
    for i in 0..5 {
        for message in client.simple_query(&format!("select {i}, 'x'")).await? {
            match message {
                SimpleQueryMessage::Row(row) => seen.push(json!([row.get(0), row.get(1)])),
                SimpleQueryMessage::CommandComplete(rows) => seen.push(json!(rows)),
                SimpleQueryMessage::RowDescription(columns) => seen.push(json!(columns[0].name())),
                _ => seen.push(Value::Null),
            }
        }
    }
    Ok(json!(seen))
}

pub async fn queries_with_parameters(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let mut seen = Vec::new();
    for i in 0..10_i32 {
        let row = client.query_one("select $1::int + 1, $2::text", &[&i, &format!("v{i}")]).await?;
        seen.push((row.get::<_, i32>(0), row.get::<_, String>(1)));
    }
    Ok(json!(seen))
}

pub async fn a_prepared_statement_is_reused(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let statement = client.prepare("select $1::int * 3").await?;
    let mut seen = Vec::new();
    for i in 0..20_i32 {
        seen.push(client.query_one(&statement, &[&i]).await?.get::<_, i32>(0));
    }
    Ok(json!(seen))
}

pub async fn a_prepared_statement_knows_its_types(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let statement = client.prepare("select $1::int as a, $2::text[] as b, now() as c").await?;
    let parameters: Vec<_> = statement.params().iter().map(Type::name).collect();
    let columns: Vec<_> = statement.columns().iter().map(|column| (column.name(), column.type_().name())).collect();
    Ok(json!([parameters, columns]))
}

pub async fn a_dropped_statement_is_closed(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let mut seen = Vec::new();
    for i in 0..30_i32 {
        let statement = client.prepare(&format!("select {i} + $1::int")).await?;
        seen.push(client.query_one(&statement, &[&1_i32]).await?.get::<_, i32>(0));
    }
    Ok(json!(seen))
}

pub async fn many_statements(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let texts = (0..50).map(|i| format!("select {i}::int + $1::int"));
    let statements = future::try_join_all(texts.map(|text| {
        let client = &client;
        async move { client.prepare(&text).await }
    }))
    .await?;
    let mut sum = 0;
    for statement in statements.iter().chain(statements.iter().rev()) {
        sum += client.query_one(statement, &[&1_i32]).await?.get::<_, i32>(0);
    }
    Ok(json!(sum))
}

pub async fn statements_in_a_pipeline(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let statement = client.prepare("select $1::int * 2").await?;
    let rows = future::try_join_all((0..100_i32).map(|i| {
        let (client, statement) = (&client, &statement);
        async move { Ok::<_, Error>(client.query_one(statement, &[&i]).await?.get::<_, i32>(0)) }
    }))
    .await?;
    Ok(json!(rows))
}

pub async fn an_error_in_a_pipeline_hits_only_its_statement(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let statement = client.prepare("select 10 / $1::int").await?;
    let outcomes = future::join_all((0..5_i32).map(|i| {
        let (client, statement) = (&client, &statement);
        async move { code(client.query_one(statement, &[&(i % 2)]).await) }
    }))
    .await;
    Ok(json!(outcomes))
}

pub async fn binary_values(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let row = client
        .query_one(
            "select $1::int2, $2::int8, $3::float8, $4::bytea, $5::bool, $6::oid, $7::\"char\"",
            &[&7_i16, &(1_i64 << 40), &1.25_f64, &vec![0_u8, 255], &true, &26_u32, &65_i8],
        )
        .await?;
    let values = (row.get::<_, i16>(0), row.get::<_, i64>(1), row.get::<_, f64>(2), row.get::<_, Vec<u8>>(3));
    Ok(json!([values, row.get::<_, bool>(4), row.get::<_, u32>(5), row.get::<_, i8>(6)]))
}

pub async fn arrays_and_json(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let document = json!({"a": [1, null, "ü"], "b": {"c": true}});
    let row = client
        .query_one(
            "select $1::int[], $2::text[], ($3::text::jsonb)::text",
            &[&vec![Some(1), None, Some(3)], &vec!["a", "b\"c", ""], &document.to_string()],
        )
        .await?;
    let numbers: Vec<Option<i32>> = row.get(0);
    let texts: Vec<String> = row.get(1);
    let document: String = row.get(2);
    Ok(json!([numbers, texts, document]))
}

pub async fn null_and_empty_values(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let row = client.query_one("select $1::text, $2::text", &[&None::<String>, &""]).await?;
    let values: (Option<String>, Option<String>) = (row.get(0), row.get(1));
    let nothing = client.query("", &[]).await?.len();
    let no_rows = client.query("select 1 where false", &[]).await?.len();
    Ok(json!([values, nothing, no_rows, client.query_one("select", &[]).await?.len()]))
}

pub async fn unicode_text(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let row = client.query_one("select $1::text, length($1::text)", &[&"Ünï 漢字 🐘 '\"\\\t\n"]).await?;
    Ok(json!((row.get::<_, String>(0), row.get::<_, i32>(1))))
}

pub async fn several_statements_in_one_query(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let messages = client.simple_query("select 1; select 2, 3; create temp table x(); drop table x").await?;
    Ok(json!(messages.len()))
}

pub async fn an_error_among_several_statements(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let table = bench.table(&client).await?;
    let failed = code(client.batch_execute(&format!("insert into {table} values (1, 'a'); select 1/0")).await);
    Ok(json!([failed, count(&client, &table).await?]))
}

pub async fn errors_carry_their_details(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let table = bench.table(&client).await?;
    client.execute(&format!("insert into {table} values (1)"), &[]).await?;
    let error = client.execute(&format!("insert into {table} values ($1)"), &[&1_i32]).await.unwrap_err();
    let details = error.as_db_error().map(|error| (error.severity().to_owned(), error.detail().map(str::to_owned)));
    let misspelt = code(client.query("selec 1", &[]).await);
    Ok(json!([details, misspelt, code(client.query("select * from missing_table", &[]).await)]))
}

pub async fn rows_are_streamed(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let rows = client.query_raw("select generate_series(1, 100000)", Vec::<i32>::new()).await?;
    let mut rows = pin!(rows);
    let mut sum = 0_i64;
    while let Some(row) = rows.next().await {
        sum += i64::from(row?.get::<_, i32>(0));
    }
    Ok(json!(sum))
}

pub async fn typed_queries(bench: Bench) -> Outcome {
    let client = bench.connect().await?;
    let rows = client.query_typed("select $1 + 1", &[(&41_i32, Type::INT4)]).await?;
    Ok(json!(rows[0].get::<_, i32>(0)))
}
