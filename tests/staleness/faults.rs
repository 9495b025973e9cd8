//! What happens to servers and proxies meanwhile. What happens to clients is a way to write.

use std::{thread, time::Duration};

use nix::sys::signal::Signal;

use super::{session::Dice, topology::Topology};

/// One thing that goes wrong, and is well again when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing, for a while.
    Peace,
    /// Nothing, for as long as caches need to open again.
    Calm,
    /// A session's server process ends in the midst of what it does.
    BackendTerminated,
    /// Commits wait for a standby that does not come: in the log, and invisible. Then some server processes end.
    CommitsHang,
    /// The processes end that tell proxies of direct writes.
    StreamsEnded,
    /// A replica stops to replay.
    ReplicaPaused,
    /// A replica crashes and comes back.
    ReplicaRestarted,
    /// Redis stands still, and goes on where it stood.
    RedisStopped,
    /// Redis crashes and comes back empty.
    RedisRestarted,
    /// One proxy reaches Redis no more, or hears nothing of it, or both.
    RedisCut,
    /// A proxy crashes and is started again.
    ProxyKilled,
    /// A proxy stands still, and goes on where it stood.
    ProxyStopped,
}

impl Fault {
    /// Happens, and ends.
    pub fn happen(self, topology: &Topology<'_>, dice: &mut Dice) {
        let cluster = topology.cluster;
        let pause = Duration::from_millis(50 + dice.roll(250));
        // Some of these end before anybody's right to serve does, some later.
        let long = Duration::from_millis(50 + dice.roll(2000));
        let replica = &cluster.replicas[usize::try_from(dice.roll(2)).unwrap()];
        let site = dice.pick(&topology.sites);
        let redis = || topology.redis.as_ref().unwrap().lock().unwrap();
        match self {
            Self::Peace => thread::sleep(pause),
            Self::Calm => thread::sleep(Duration::from_millis(1500) + pause),
            Self::BackendTerminated => {
                terminate(topology, "state = 'active' and query not ilike 'select%'");
                thread::sleep(pause);
            }
            Self::CommitsHang => {
                cluster.primary.configure("synchronous_standby_names", "nobody");
                thread::sleep(pause);
                terminate(topology, "wait_event = 'SyncRep'");
                cluster.primary.configure("synchronous_standby_names", "");
                thread::sleep(pause);
            }
            Self::StreamsEnded => {
                let database = &topology.database;
                cluster.primary.session("postgres").rows(&format!(
                    "select pg_terminate_backend(pid) from pg_stat_activity
                     where backend_type = 'walsender' and datname = '{database}'"
                ));
                thread::sleep(pause);
            }
            Self::ReplicaPaused => {
                replica.pause_replay();
                thread::sleep(pause * 2);
                replica.resume_replay();
            }
            Self::ReplicaRestarted => {
                replica.stop();
                thread::sleep(pause);
                replica.start();
                thread::sleep(pause * 4);
            }
            Self::RedisStopped => {
                redis().signal(Signal::SIGSTOP);
                thread::sleep(long);
                redis().signal(Signal::SIGCONT);
            }
            Self::RedisRestarted => {
                redis().die();
                thread::sleep(long);
                redis().come_back();
            }
            Self::RedisCut => {
                let way = site.way.as_ref().unwrap();
                let (there, back) = *dice.pick(&[(true, true), (true, false), (false, true)]);
                way.cut(there, back);
                thread::sleep(long);
                way.mend(dice.one_in(2));
            }
            Self::ProxyKilled => {
                topology.kill(site);
                // The other one serves nothing before it knows that this one has gone.
                thread::sleep(long + Duration::from_millis(dice.roll(1500)));
                site.proxy().come_back();
                // Whoever comes back meets others who do not know of him yet.
                thread::sleep(Duration::from_millis(300) + pause);
            }
            Self::ProxyStopped => {
                site.proxy().signal(Signal::SIGSTOP);
                thread::sleep(long);
                site.proxy().signal(Signal::SIGCONT);
            }
        }
    }
}

/// Ends up to two server processes of the proxies that are in this state.
fn terminate(topology: &Topology<'_>, condition: &str) {
    let mut admin = topology.cluster.primary.session("postgres");
    admin.rows(&format!(
        "select pg_terminate_backend(pid) from (select pid from pg_stat_activity where datname = '{}'
             and usename = 'app' and pid <> pg_backend_pid() and {condition} order by random() limit 2) victims",
        topology.database
    ));
}

/// Every one of these comes before any of them comes again.
#[derive(Debug, Default)]
pub struct Deck(Vec<Fault>);

impl Deck {
    pub fn next(&mut self, faults: &[Fault], dice: &mut Dice) -> Fault {
        if self.0.is_empty() {
            self.0 = faults.to_vec();
        }
        let place = usize::try_from(dice.roll(self.0.len() as u64)).unwrap();
        self.0.swap_remove(place)
    }
}
