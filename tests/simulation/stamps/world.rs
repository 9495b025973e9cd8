//! One proxy, its servers, and who uses them.

use std::sync::Arc;

use pgweir::{
    cache::{CatalogEpoch, Cells, KeyPrefix, ResultCache},
    config::PrimaryReads,
    lsn::Lsn,
    routing::{Health, Limits, Member, MemberId, PrimarySamples, Role, Sample, Topology},
};

use super::{
    Ablation,
    content::{Server, TABLES, VIEW, Versions},
    readers::Reader,
    writers::Writer,
};
use crate::random::Random;

pub(super) const READERS: usize = 4;
pub(super) const WRITERS: usize = 3;
pub(super) const PRIMARY: MemberId = MemberId(0);
pub(super) const REPLICA: MemberId = MemberId(1);

/// The proxy's picture of the catalog, which is loaded in steps.
pub(super) enum Loader {
    Idle,
    Begun(CatalogEpoch),
    Read(CatalogEpoch, u64),
}

/// How often the interesting things happened, so that a run of nothing cannot pass.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    pub(super) hits: u64,
    pub(super) joined: u64,
    pub(super) fills: u64,
    pub(super) view_hits: u64,
    pub(super) replica_fills: u64,
    pub(super) replica_reads: u64,
    pub(super) in_doubt: u64,
    pub(super) prepared: u64,
    pub(super) rollbacks: u64,
}

impl Coverage {
    pub(super) fn counts(&mut self) -> [&mut u64; 9] {
        let Self { hits, joined, fills, view_hits, replica_fills, replica_reads, in_doubt, prepared, rollbacks } = self;
        [hits, joined, fills, view_hits, replica_fills, replica_reads, in_doubt, prepared, rollbacks]
    }
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) ablation: Ablation,
    pub(super) now: u64,
    pub(super) server: Server,
    pub(super) told: Versions,
    pub(super) cells: Arc<Cells>,
    pub(super) cache: Arc<ResultCache>,
    pub(super) topology: Topology,
    pub(super) catalog: (CatalogEpoch, u64),
    pub(super) loader: Loader,
    pub(super) readers: Vec<Reader>,
    pub(super) writers: Vec<Writer>,
    pub(super) running_backends: Vec<i32>,
    pub(super) next_backend: i32,
    pub(super) prefix: KeyPrefix,
    pub(super) coverage: Coverage,
}

fn topology() -> Topology {
    let member = |id, name: &str| Member {
        id,
        name: name.into(),
        weight: 1,
        max_lag: None,
        role: Role::Any,
        state: Arc::default(),
    };
    let limits =
        Limits { max_lag: u64::MAX, sample_interval: u64::MAX, primary_reads: PrimaryReads::Fallback, wait_for_lsn: 0 };
    let members = vec![member(PRIMARY, "primary"), member(REPLICA, "replica")];
    let topology = Topology::new(members, limits, PrimarySamples::new(8));
    for member in topology.members() {
        member.state.set_health(Health::Up);
        member.state.set_in_recovery(member.id == REPLICA);
    }
    topology.set_primary(Some(PRIMARY));
    topology
}

impl World {
    pub(super) fn new(seed: u64, ablation: Ablation) -> Self {
        let mut random = Random::new(seed);
        let cells = Arc::new(Cells::new(random.draw(), 1));
        Self {
            catalog: (cells.catalog_epoch(), 0),
            loader: Loader::Idle,
            cells,
            random,
            ablation,
            now: 1,
            server: Server::default(),
            told: Versions::default(),
            cache: ResultCache::new(1 << 20, 1 << 10),
            topology: topology(),
            readers: (0..READERS).map(|_| Reader::Idle).collect(),
            writers: (0..WRITERS).map(|_| Writer::Idle).collect(),
            running_backends: Vec::new(),
            next_backend: 1,
            prefix: KeyPrefix::new("shop", 5, "alice", []),
            coverage: Coverage::default(),
        }
    }

    pub(super) fn step(&mut self) -> Result<(), String> {
        self.now += 1;
        match self.random.below(20) {
            0 | 1 => self.server.replay(),
            2 | 3 => self.sample(),
            4 => self.resolve_doubts(),
            5 | 6 => self.load_catalog(),
            7..=9 => {
                let at = self.random.below(WRITERS);
                let writer = std::mem::replace(&mut self.writers[at], Writer::Idle);
                self.writers[at] = self.write(writer);
            }
            10 => self.read_uncached()?,
            _ => {
                let at = self.random.below(READERS);
                let reader = std::mem::replace(&mut self.readers[at], Reader::Idle);
                self.readers[at] = self.read(reader)?;
            }
        }
        Ok(())
    }

    pub(super) fn some_tables(&mut self) -> Vec<usize> {
        let first = self.random.below(TABLES);
        let mut tables = vec![first];
        if self.random.one_in(3) {
            tables.push((first + 1) % TABLES);
        }
        tables
    }

    fn sample(&mut self) {
        let position = |commits: usize| Lsn::new(commits as u64);
        if self.random.one_in(2) {
            let lsn = position(self.server.wal.len());
            self.topology.note_primary_sample(PRIMARY, Sample { sent_at: self.now, lsn });
        } else {
            self.topology.note_replica_sample(REPLICA, self.now, self.now, position(self.server.replayed));
        }
    }

    /// Only what ran in a backend that is gone is resolved; the rest comes back.
    fn resolve_doubts(&mut self) {
        for in_doubt in self.cells.take_in_doubt() {
            let backend = in_doubt.origin().unwrap().process_id;
            if !self.running_backends.contains(&backend) {
                in_doubt.resolve(self.now, || self.random.draw());
                self.coverage.in_doubt += 1;
            }
        }
    }

    fn load_catalog(&mut self) {
        self.loader = match std::mem::replace(&mut self.loader, Loader::Idle) {
            Loader::Idle => Loader::Begun(self.cells.catalog_epoch()),
            Loader::Begun(epoch) => Loader::Read(epoch, self.server.visible[VIEW]),
            Loader::Read(epoch, changes) => {
                self.catalog = (epoch, changes);
                Loader::Idle
            }
        };
    }
}
