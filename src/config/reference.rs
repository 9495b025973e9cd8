//! The reference configuration, generated from the declarations.

use std::fmt::Write;

use super::{
    entries::{DatabaseConfig, MemberSection, PeerConfig, UserConfig},
    main_section::MainSection,
    sections::{CacheSection, ControlSection, HttpSection, InsightSection, RoutingSection, SessionsSection},
    setting::{Section, Setting},
};

const INTRODUCTION: &str = "\
;; Every setting of pgweir with its default. Generated; `pgweir reference` prints it.
;;
;; The format is PgBouncer's, and so are [pgbouncer], [databases], [users] and [peers].
;; A comment has a line of its own. Times are seconds (0.5 is fine), sizes take kB, MB and GB.
;; `%include FILE` reads another file here. ${NAME} is replaced from the environment in the
;; sections that PgBouncer does not have, and in password=${NAME}.
;; Values marked `applies at start` stay as they were started until the next start.
";

/// What `config/reference.ini` holds.
pub fn reference() -> String {
    let mut text = INTRODUCTION.to_owned();
    entries::<DatabaseConfig>(&mut text, "databases", DATABASES);
    entries::<MemberSection>(&mut text, "replicas", REPLICAS);
    entries::<UserConfig>(&mut text, "users", USERS);
    entries::<PeerConfig>(&mut text, "peers", PEERS);
    settings::<MainSection>(&mut text, "pgbouncer", "May also be spelled [pgweir]. A second one sets everything back.");
    settings::<RoutingSection>(&mut text, "routing", "Which member of a database serves a statement.");
    settings::<CacheSection>(&mut text, "cache", "Answers kept for repeated reads.");
    line(&mut text, format_args!("\n[cache_ttl]\n;; {LIFETIMES}"));
    settings::<InsightSection>(&mut text, "insight", "What is remembered about statements.");
    settings::<ControlSection>(&mut text, "control", "Who runs probes, catalog loads and EXPLAIN.");
    settings::<HttpSection>(&mut text, "http", "Metrics, health and dashboard.");
    settings::<SessionsSection>(&mut text, "sessions", "Session state in transaction pooling.");
    text
}

const DATABASES: &str = "\
name = connect string: pairs of key=value separated by blanks; a value with blanks in single
;; quotes, a quote inside doubled. * is the fallback for names that are not listed.
;; Example: shop = host=db1 port=5432 dbname=shop pool_size=20";
const REPLICAS: &str = "\
database.name = connect string: a member that serves reads. The name is split at its last dot.
;; It inherits every key of its database but host, which it must have, and may set these:
;; Example: shop.r1 = host=db2 weight=2";
const USERS: &str = "\
name = pairs of key=value, before those of the database and [pgbouncer].
;; Example: reporting = pool_mode=session max_user_connections=5";
const PEERS: &str = "\
id = connect string: other processes behind the same address that may know a cancel key.
;; Example: 2 = host=/tmp/pgweir-2";
const LIFETIMES: &str = "\
schema.table = seconds: how long answers that read it are kept, in the place of ttl of [cache];
;; 0: until a write makes them void; off: they are not kept. schema.* is each relation of the
;; schema; database.schema.table holds for that database only, and the more precise entry comes
;; first. Of the tables that a statement names, itself or by its views, the shortest life counts;
;; a partition without an entry has that of its parent. A fingerprint of SHOW QUERIES in the
;; place of a name is about that query shape, whatever it reads. A hint, cache ttl=30s, goes
;; first of all. (applies on reload)
;; Example: reports.daily_sales = 600";

/// Writing to a `String` cannot fail.
fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(text, "{line}");
}

fn settings<S: Section>(text: &mut String, section: &str, about: &str) {
    line(text, format_args!("\n[{section}]\n;; {about}"));
    for setting in S::TABLE {
        line(text, format_args!(""));
        documentation(text, setting);
        line(text, format_args!(";; {}, {}", setting.expected, setting.applies.label()));
        let default = (setting.show_default)(&S::default()).unwrap_or_default();
        line(text, format_args!("{}", format!(";{} = {default}", setting.name).trim_end()));
    }
}

fn entries<S: Section>(text: &mut String, section: &str, about: &str) {
    line(text, format_args!("\n[{section}]\n;; {about}"));
    for setting in S::TABLE {
        line(text, format_args!(";;"));
        line(text, format_args!(";;   {}= ({})", setting.name, setting.expected));
        for documentation in setting.documentation {
            line(text, format_args!(";;     {}", documentation.trim()));
        }
    }
}

fn documentation<S>(text: &mut String, setting: &Setting<S>) {
    for documentation in setting.documentation {
        line(text, format_args!(";; {}", documentation.trim()));
    }
}
