//! SHOW ROUTE: what would be done with a statement.

use std::sync::Arc;

use crate::{
    admin::rows::RouteRow,
    catalog::{Access, AccessReason, Meaning},
    cluster::Database,
    proxy::Proxy,
    routing::{Demand, Fence, RouteReason},
};

pub(super) fn route_rows(proxy: &Proxy, database: &Arc<Database>, user: &str, sql: &str) -> Vec<RouteRow> {
    let statement = proxy.context.analyzer.analyze(sql);
    let texts = statement.parts.iter().map(|part| sql.get(part.start..part.end).unwrap_or(sql).trim().to_owned());
    let mut texts: Vec<String> = texts.collect();
    if texts.is_empty() {
        texts.push(sql.to_owned());
    }
    // A string is placed as a whole, by its strongest statement.
    let whole = database.meaning(&statement, user);
    let row = |text: String| {
        let statement = proxy.context.analyzer.analyze(&text);
        let meaning = database.meaning(&statement, user);
        let (route, member, mut reason) = place(proxy, database, &whole);
        if whole.reason == AccessReason::MultiStatement && meaning.access == Access::Primary {
            reason = meaning.reason.label();
        }
        let (cache, cache_reason) = match (&database.cache, &whole.cacheable) {
            (None, _) => ("off", "off"),
            (Some(_), Err(bypass)) => ("bypass", bypass.label()),
            (Some(_), Ok(_)) => ("miss", "cacheable"),
        };
        let catalog = database.catalog();
        let names = meaning.relations.iter().filter_map(|relation| catalog.as_ref()?.snapshot.relation_name(*relation));
        RouteRow {
            statement: statement.normalized.to_string(),
            access: match meaning.access {
                Access::Read => "read",
                Access::Primary => "primary",
            },
            route,
            member,
            reason,
            cache,
            cache_reason,
            relations: names.collect::<Vec<_>>().join(","),
        }
    };
    texts.into_iter().map(row).collect()
}

fn place(proxy: &Proxy, database: &Database, meaning: &Meaning) -> (&'static str, Option<String>, &'static str) {
    let name = |member| database.member_name(member).map(|name| name.to_string());
    let primary = database.primary();
    let on_primary = |reason| ("primary", primary.and_then(name), reason);
    if !database.settings.splits_reads {
        return on_primary("split_off");
    }
    if meaning.access == Access::Primary {
        return on_primary(meaning.reason.label());
    }
    let relations = meaning.cacheable.as_deref().ok();
    let fence = database.read_fence(Fence::NONE, relations);
    let choice = database.route(&Demand::fenced(fence), proxy.context.clock.now());
    match choice.member {
        Some(member) if choice.reason == RouteReason::Replica => ("replica", name(member), meaning.reason.label()),
        _ => on_primary(choice.reason.label()),
    }
}
