//! SHOW ROUTE: what would be done with a statement.

use std::sync::Arc;

use crate::{
    admin::rows::RouteRow,
    catalog::{Access, AccessReason},
    client::would_run,
    cluster::Database,
    insight::Route,
    proxy::Proxy,
};

pub(super) fn route_rows(proxy: &Proxy, database: &Arc<Database>, user: &str, sql: &str) -> Vec<RouteRow> {
    let string = proxy.context.analyzer.analyze(sql);
    let texts = string.parts.iter().map(|part| sql.get(part.start..part.end).unwrap_or(sql).trim().to_owned());
    let mut texts: Vec<String> = texts.collect();
    if texts.is_empty() {
        texts.push(sql.to_owned());
    }
    // A string is placed as a whole, by its strongest statement.
    let whole = database.meaning(&string, user);
    let row = |text: String| {
        let statement = proxy.context.analyzer.analyze(&text);
        let meaning = database.meaning(&statement, user);
        let now = proxy.context.clock.now();
        let (route, member, mut reason) = would_run(database, user, &string, Arc::clone(&whole), now);
        if whole.reason == AccessReason::MultiStatement && meaning.access == Access::Primary {
            reason = meaning.reason.label();
        }
        let (cache, cache_reason) = match (database.caches() || database.observes(), &whole.cacheable) {
            (false, _) => ("off", "off"),
            (true, Err(bypass)) => ("bypass", bypass.label()),
            (true, Ok(_)) => ("miss", "cacheable"),
        };
        let catalog = database.catalog();
        let names = meaning.relations.iter().filter_map(|relation| catalog.as_ref()?.snapshot.relation_name(*relation));
        RouteRow {
            statement: statement.normalized.to_string(),
            access: match meaning.access {
                Access::Read => "read",
                Access::Primary => "primary",
            },
            route: if route == Route::Replica { "replica" } else { "primary" },
            member: member.and_then(|member| Some(database.member_name(member)?.to_string())),
            reason,
            cache,
            cache_reason,
            relations: names.collect::<Vec<_>>().join(","),
        }
    };
    texts.into_iter().map(row).collect()
}
