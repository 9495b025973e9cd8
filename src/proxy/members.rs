//! The members of a database as the configuration names them.

use std::sync::Arc;

use crate::{
    clock::nanos,
    config::{Config, DatabaseConfig, Host, LoadBalanceHosts, ReplicaRole},
    net::Address,
    pool::Turns,
    routing::{Member, MemberId, MemberState, Role},
};

/// Members of a database in order of their ids: the configured primary, then its replicas.
pub(super) fn members(section: &DatabaseConfig) -> Vec<(String, &DatabaseConfig)> {
    let replicas = section.replicas.iter();
    let replicas = replicas.map(|replica| (format!("{}.{}", section.name, replica.name), &replica.parameters));
    std::iter::once((section.name.clone(), section)).chain(replicas).collect()
}

/// Where one member is.
pub(super) fn address(section: &DatabaseConfig, config: &Config) -> Address {
    address_of(section.hosts().next().unwrap_or(Host::Default), section.port, config)
}

fn address_of(host: Host<'_>, port: u16, config: &Config) -> Address {
    match host {
        Host::Tcp(host) => Address::new(host, port),
        Host::Unix(directory) => Address::new(directory, port),
        Host::Default => Address::new(&config.pgbouncer.unix_socket_dir, port),
    }
}

/// The host of a list that the next connection goes to.
pub(super) fn host_in_turn(section: &DatabaseConfig, config: &Config, turns: Turns) -> Address {
    let hosts: Vec<_> = section.hosts().collect();
    let turn = match section.load_balance_hosts {
        LoadBalanceHosts::RoundRobin => turns.attempts,
        LoadBalanceHosts::Disable => turns.after_failure,
    };
    let host = turn.checked_rem(hosts.len()).and_then(|turn| hosts.get(turn)).copied();
    address_of(host.unwrap_or(Host::Default), section.port, config)
}

/// The parameters of member number `member`.
pub(super) fn member_section(section: &DatabaseConfig, member: MemberId) -> Option<&DatabaseConfig> {
    match usize::from(member.0).checked_sub(1) {
        None => Some(section),
        Some(replica) => section.replicas.get(replica).map(|replica| &replica.parameters),
    }
}

/// The parameters of the member of that name.
pub(super) fn section_named<'a>(section: &'a DatabaseConfig, member: &str) -> Option<&'a DatabaseConfig> {
    members(section).into_iter().find(|(name, _)| name == member).map(|(_, parameters)| parameters)
}

/// What a connect string asks of a server at login.
pub(super) fn login_parameters(section: &DatabaseConfig) -> Vec<(String, String)> {
    let pairs = [
        ("client_encoding", &section.client_encoding),
        ("datestyle", &section.datestyle),
        ("timezone", &section.timezone),
        ("application_name", &section.application_name),
    ];
    pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))).collect()
}

/// As routing sees them; `before` knows what was known of a member of that name.
pub(super) fn routing_members<'a>(
    section: &DatabaseConfig,
    before: impl Fn(&str) -> Option<&'a MemberState>,
) -> Vec<Member> {
    let state = |name: &str| Arc::new(before(name).map(MemberState::succeeding).unwrap_or_default());
    let has_equals = section.has_equals();
    let primary = Member {
        id: MemberId(0),
        name: section.name.as_str().into(),
        weight: 1,
        max_lag: None,
        role: if has_equals { Role::Any } else { Role::Replica },
        state: state(&section.name),
    };
    let replica = |(index, replica): (usize, &crate::config::ReplicaConfig)| {
        let name = format!("{}.{}", section.name, replica.name);
        Member {
            id: MemberId(index as u16 + 1),
            state: state(&name),
            name: name.into(),
            weight: replica.weight,
            max_lag: replica.max_lag.map(nanos),
            role: match replica.role {
                ReplicaRole::Replica => Role::Replica,
                ReplicaRole::Any => Role::Any,
            },
        }
    };
    std::iter::once(primary).chain(section.replicas.iter().enumerate().map(replica)).collect()
}
