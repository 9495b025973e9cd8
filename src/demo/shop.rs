//! A small shop: what is in it and what is asked of it.

/// Database and the role that uses it.
pub(super) const NAME: &str = "shop";
pub(super) const PRODUCTS: u64 = 40_000;
pub(super) const CUSTOMERS: u64 = 4_000;
pub(super) const CATEGORIES: u64 = 12;

/// Run one by one: CREATE DATABASE stands alone. `pgweir` is who watches the members.
pub(super) const DATABASE: [&str; 3] =
    ["CREATE ROLE shop LOGIN", "CREATE ROLE pgweir LOGIN IN ROLE pg_monitor", "CREATE DATABASE shop OWNER shop"];

pub(super) const SCHEMA: &str = "
SET ROLE shop;
CREATE TABLE category (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE product (
    id int PRIMARY KEY, category_id int NOT NULL REFERENCES category, name text NOT NULL,
    price_cents int NOT NULL, stock int NOT NULL
);
CREATE TABLE customer (id int PRIMARY KEY, name text NOT NULL, city text NOT NULL);
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id int NOT NULL REFERENCES customer,
    placed_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE order_line (
    order_id bigint NOT NULL REFERENCES orders, product_id int NOT NULL REFERENCES product,
    quantity int NOT NULL, price_cents int NOT NULL, PRIMARY KEY (order_id, product_id)
);
INSERT INTO category SELECT n, 'Category ' || n FROM generate_series(1, 12) n;
INSERT INTO product
    SELECT n, 1 + n % 12, 'Product ' || n, 100 + n * 37 % 9900, n * 13 % 500 FROM generate_series(1, 40000) n;
INSERT INTO customer
    SELECT n, 'Customer ' || n, (ARRAY['Berlin', 'Lima', 'Oslo', 'Pune', 'Quito'])[1 + n % 5]
      FROM generate_series(1, 4000) n;
INSERT INTO orders (customer_id) SELECT 1 + n % 4000 FROM generate_series(1, 6000) n;
INSERT INTO order_line
    SELECT id, 1 + id * 7 % 40000, 1 + id % 3, 500 FROM orders UNION ALL
    SELECT id, 1 + (id * 11 + 5) % 40000, 1, 900 FROM orders WHERE id * 7 % 40000 <> (id * 11 + 5) % 40000;
CREATE INDEX ON product (category_id, price_cents);
CREATE INDEX ON orders (customer_id);
CREATE VIEW sales AS
    SELECT c.name AS category, sum(l.quantity) AS items, sum(l.quantity * l.price_cents) AS cents
      FROM order_line l JOIN product p ON p.id = l.product_id JOIN category c ON c.id = p.category_id
     GROUP BY c.name;
RESET ROLE;
ANALYZE;
";

pub(super) const PRODUCT_BY_KEY: &str = "SELECT id, name, price_cents, stock FROM product WHERE id = $1";
pub(super) const CATEGORY_PAGE: &str =
    "SELECT id, name, price_cents FROM product WHERE category_id = $1 ORDER BY price_cents, id LIMIT 20 OFFSET $2";
pub(super) const CUSTOMER_WITH_ORDERS: &str = "\
    SELECT c.name, o.id, sum(l.quantity * l.price_cents) FROM customer c \
      JOIN orders o ON o.customer_id = c.id JOIN order_line l ON l.order_id = o.id \
     WHERE c.id = $1 GROUP BY c.name, o.id ORDER BY o.id DESC LIMIT 10";
/// The same for everybody, over and over, as dashboards are.
pub(super) const DASHBOARDS: [&str; 3] = [
    "SELECT category, items, cents FROM sales ORDER BY cents DESC",
    "SELECT c.name, count(*), sum(p.stock) FROM category c JOIN product p ON p.category_id = c.id GROUP BY c.name",
    "SELECT city, count(*) FROM customer GROUP BY city ORDER BY city",
];

pub(super) const PLACE_ORDER: &str = "INSERT INTO orders (customer_id) VALUES ($1) RETURNING id";
pub(super) const ADD_LINE: &str = "INSERT INTO order_line VALUES ($1, $2, $3, 1000)";
pub(super) const LINES_OF_ORDER: &str = "SELECT count(*) FROM order_line WHERE order_id = $1";
pub(super) const CHANGE_PRICE: &str = "UPDATE product SET price_cents = $2 WHERE id = $1";

/// For the simple protocol: values stand in the text, and every text is another.
pub(super) fn search(category: u64, below_cents: u64) -> String {
    format!(
        "SELECT id, name FROM product WHERE category_id = {category} AND price_cents < {below_cents} \
         ORDER BY price_cents DESC, id LIMIT 10"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_the_schema_are_the_numbers_of_the_traffic() {
        for (rows, of) in [(PRODUCTS, "40000) n"), (CUSTOMERS, "4000) n"), (CATEGORIES, "12) n")] {
            assert!(SCHEMA.contains(&format!("generate_series(1, {of}")) && of.starts_with(&rows.to_string()));
        }
    }
}
