//! Texts of queries that differ by a literal.

/// How many texts of a shape take turns.
const TEXTS: usize = 64;
/// The first of their literals; all have as many digits.
const FIRST_LITERAL: usize = 12_345;

/// A query, cut where its literal stands.
#[derive(Clone, Copy)]
pub(crate) struct Query(&'static str, &'static str);

/// What `pgbench -S` asks.
pub(crate) const SHORT: Query = Query("SELECT abalance FROM pgbench_accounts WHERE aid = ", ";");

/// A report of about a kilobyte, as an object-relational mapper writes it.
pub(crate) const LONG: Query = Query(
    r#"SELECT "orders"."id", "orders"."number", "orders"."status", "orders"."created_at", "customers"."name" AS "customer",
    "addresses"."city", "addresses"."country", count("items"."id") AS "items", sum("items"."price" * "items"."quantity")
    AS "total", max("shipments"."sent_at") AS "last_sent_at" FROM "orders" INNER JOIN "customers" ON "customers"."id" =
    "orders"."customer_id" LEFT OUTER JOIN "addresses" ON "addresses"."customer_id" = "customers"."id" AND
    "addresses"."kind" = 'delivery' INNER JOIN "items" ON "items"."order_id" = "orders"."id" LEFT OUTER JOIN "shipments"
    ON "shipments"."order_id" = "orders"."id" WHERE "orders"."status" IN ('paid', 'packed', 'sent') AND "items"."price" >
    9.99 AND NOT EXISTS (SELECT 1 FROM "refunds" WHERE "refunds"."order_id" = "orders"."id") AND "customers"."id" = "#,
    r#" GROUP BY "orders"."id", "customers"."name", "addresses"."city", "addresses"."country" HAVING count("items"."id") > 0
    ORDER BY "orders"."created_at" DESC LIMIT 50 OFFSET 0"#,
);

impl Query {
    /// Its text.
    pub(crate) fn with_literal(self, literal: usize) -> String {
        let Self(before, behind) = self;
        format!("{before}{literal}{behind}")
    }

    /// Texts that are equally long.
    pub(crate) fn with_literals(self) -> Vec<String> {
        (FIRST_LITERAL..FIRST_LITERAL + TEXTS).map(|literal| self.with_literal(literal)).collect()
    }
}
