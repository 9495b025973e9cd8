//! Configuration: PgBouncer's ini format and settings, and sections of our own.
//!
//! Plain data. Only [`load`] touches files and the environment; everything else is given text. A setting is declared
//! once, in `main_section`, `sections` or `entries`; its parser, error text, SHOW CONFIG row and reference entry
//! follow from that.

mod choice;
mod connect_string;
mod effective;
mod entries;
mod environment;
mod error;
mod ini;
mod lifetime;
mod load;
mod locate;
mod main_section;
mod reader;
mod reference;
mod sections;
pub mod setting;
mod show;
mod supported;
mod text;
pub mod tls;
pub mod value;
mod without_effect;

use std::collections::BTreeMap;

pub use self::{
    choice::{
        AuthType, CacheMode, Coherence, LoadBalanceHosts, LogFormat, PoolMode, PrimaryReads, ReadWriteSplit,
        ReadYourWrites, ReplicaRole, RoleDetection, RowSecurity, Share, SslMode, StatsColumns,
    },
    entries::{DatabaseConfig, Host, MemberSection, PeerConfig, ReplicaConfig, UserConfig},
    environment::Environment,
    error::{ConfigError, Location},
    ini::ReadInclude,
    lifetime::{LifetimeConfig, Subject},
    locate::Lines,
    main_section::MainSection,
    reference::reference,
    sections::{CacheSection, ControlSection, HttpSection, InsightSection, RoutingSection, SessionsSection},
    show::ShowRow,
    text::{FileMode, Hidden, NameList, SecretUrl},
};

/// Everything the files say, with defaults filled in. Never changed once it is in use: a reload makes another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `[pgbouncer]`.
    pub pgbouncer: MainSection,
    /// `[databases]` by name, each with its members of `[replicas]`.
    pub databases: BTreeMap<String, DatabaseConfig>,
    /// The entry `*`.
    pub fallback: Option<DatabaseConfig>,
    /// `[users]` by name.
    pub users: BTreeMap<String, UserConfig>,
    /// `[peers]` by id.
    pub peers: BTreeMap<u16, PeerConfig>,
    /// `[routing]`.
    pub routing: RoutingSection,
    /// `[cache]`.
    pub cache: CacheSection,
    /// `[cache_ttl]`, each subject once.
    pub cache_ttl: Vec<LifetimeConfig>,
    /// `[insight]`.
    pub insight: InsightSection,
    /// `[control]`.
    pub control: ControlSection,
    /// `[http]`.
    pub http: HttpSection,
    /// `[sessions]`.
    pub sessions: SessionsSection,
}

impl Config {
    /// Reads a configuration from text; `source` is its name in error texts.
    pub fn parse(
        text: &str,
        source: &str,
        environment: Environment<'_>,
        include: ReadInclude<'_>,
    ) -> Result<Config, ConfigError> {
        reader::read(text, source, environment, include)
    }

    /// What a reload must not change stays as it is in `running`.
    pub fn keep_start_values(&mut self, running: &Config) {
        use setting::Section;
        self.pgbouncer.keep_start_values(&running.pgbouncer);
        self.routing.keep_start_values(&running.routing);
        self.cache.keep_start_values(&running.cache);
        self.insight.keep_start_values(&running.insight);
        self.control.keep_start_values(&running.control);
        self.http.keep_start_values(&running.http);
        self.sessions.keep_start_values(&running.sessions);
    }
}
