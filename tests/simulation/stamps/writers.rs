//! Writers, from the commit that is sent to the client that is told.

use pgweir::cache::{Touched, WriteGuard, invalidation::Origin};

use super::{
    Ablation,
    content::{VIEW, Versions, relations},
    world::{PRIMARY, World},
};

pub(super) enum Writer {
    Idle,
    /// The commit is on its way; what is known of the tables depends on the statement.
    Sent {
        tables: Vec<usize>,
        guard: Option<WriteGuard>,
        backend: i32,
    },
    /// Committed; the reply is on its way to the proxy.
    Visible {
        tables: Vec<usize>,
        guard: Option<WriteGuard>,
    },
    /// The proxy has done its part; the reply is on its way to the client.
    Replied {
        tables: Vec<usize>,
        versions: Versions,
        late: Option<WriteGuard>,
    },
    /// Prepared under a name; anybody may commit it.
    Prepared {
        tables: Vec<usize>,
    },
    /// The connection is lost; the backend still runs, and commits or not.
    Lost {
        tables: Vec<usize>,
        backend: i32,
    },
}

impl World {
    pub(super) fn write(&mut self, writer: Writer) -> Writer {
        match writer {
            Writer::Idle if self.random.one_in(2) => Writer::Idle,
            Writer::Idle => self.send_commit(),
            Writer::Sent { tables, guard, backend } => self.decide(tables, guard, backend),
            Writer::Visible { tables, guard } => self.take_reply(tables, guard),
            Writer::Replied { tables, versions, late } => {
                self.tell(&tables, &versions);
                if let Some(guard) = late {
                    guard.committed(self.now, || self.random.draw());
                }
                Writer::Idle
            }
            Writer::Prepared { tables } if self.random.one_in(2) => Writer::Prepared { tables },
            Writer::Prepared { tables } => self.send_commit_prepared(tables),
            Writer::Lost { tables, backend } => {
                if self.random.one_in(2) {
                    self.server.commit(&tables);
                }
                self.running_backends.retain(|running| *running != backend);
                Writer::Idle
            }
        }
    }

    /// Marks first. An opaque statement marks everything until its lock set has arrived.
    fn send_commit(&mut self) -> Writer {
        let is_ddl = self.random.one_in(12);
        let tables = if is_ddl { vec![VIEW] } else { self.some_tables() };
        let backend = self.next_backend;
        self.next_backend += 1;
        let guard = (self.ablation != Ablation::NoMarkBeforeTheCommit).then(|| {
            let touched = relations(&tables);
            let is_opaque = self.random.one_in(4);
            let first = if is_opaque { Touched::Database } else { Touched::Relations(&touched) };
            let mut guard = self.cells.begin_write(first, is_ddl);
            guard.runs_on(Origin { entry: 0, member: PRIMARY, process_id: backend });
            if is_opaque && self.random.one_in(2) {
                guard.replace(Touched::Relations(&touched), is_ddl);
            }
            guard
        });
        let guard = match guard {
            Some(guard) if self.ablation == Ablation::BumpBeforeTheCommit => {
                guard.committed(self.now, || self.random.draw());
                None
            }
            guard => guard,
        };
        Writer::Sent { tables, guard, backend }
    }

    /// Of what was prepared nothing is known but its name.
    fn send_commit_prepared(&mut self, tables: Vec<usize>) -> Writer {
        let backend = self.next_backend;
        self.next_backend += 1;
        let guard = (self.ablation != Ablation::NoMarkBeforeTheCommit).then(|| {
            let mut guard = self.cells.begin_write(Touched::Database, true);
            guard.runs_on(Origin { entry: 0, member: PRIMARY, process_id: backend });
            guard
        });
        Writer::Sent { tables, guard, backend }
    }

    fn decide(&mut self, tables: Vec<usize>, guard: Option<WriteGuard>, backend: i32) -> Writer {
        match (self.random.below(8), guard) {
            (0, guard) => {
                if let Some(guard) = guard {
                    guard.rolled_back();
                }
                self.coverage.rollbacks += 1;
                Writer::Idle
            }
            (1, Some(guard)) => {
                self.running_backends.push(backend);
                if self.ablation == Ablation::LostCommitTakenForARollback {
                    guard.rolled_back();
                }
                Writer::Lost { tables, backend }
            }
            (2, Some(guard)) => {
                // Nothing is visible; the reply is taken for that of a commit.
                guard.committed(self.now, || self.random.draw());
                self.coverage.prepared += 1;
                Writer::Prepared { tables }
            }
            (_, guard) => {
                self.server.commit(&tables);
                Writer::Visible { tables, guard }
            }
        }
    }

    /// The reply has reached the proxy, which moves the stamps before it passes the reply on.
    fn take_reply(&mut self, tables: Vec<usize>, guard: Option<WriteGuard>) -> Writer {
        let versions = self.server.visible;
        let guard = guard.or_else(|| {
            let is_unmarked = self.ablation == Ablation::NoMarkBeforeTheCommit;
            let is_ddl = tables.contains(&VIEW);
            is_unmarked.then(|| self.cells.begin_write(Touched::Relations(&relations(&tables)), is_ddl))
        });
        let mut late = None;
        if let Some(guard) = guard {
            if self.ablation == Ablation::ReplyBeforeTheFence {
                self.tell(&tables, &versions);
                late = Some(guard);
            } else {
                if self.random.one_in(3) {
                    guard.reveal(self.now, || self.random.draw());
                }
                guard.committed(self.now, || self.random.draw());
            }
        }
        Writer::Replied { tables, versions, late }
    }

    fn tell(&mut self, tables: &[usize], versions: &Versions) {
        for table in tables {
            self.told[*table] = self.told[*table].max(versions[*table]);
        }
    }
}
