//! What happens to servers meanwhile. What happens to clients is a way to write.

use std::{thread, time::Duration};

use super::{plan::Topology, session::Dice};

/// One thing that goes wrong, and is well again when it is over.
///
/// With a bus between proxies there is more that can: a Redis that stops, a proxy that dies or stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing, for a while.
    Peace,
    /// A session's server process ends in the midst of what it does.
    BackendTerminated,
    /// Commits wait for a standby that does not come: in the log, and invisible. Then some server processes end.
    CommitsHang,
    /// A replica stops to replay.
    ReplicaPaused,
    /// A replica crashes and comes back.
    ReplicaRestarted,
}

impl Fault {
    /// Happens, and ends.
    pub fn happen(self, topology: &Topology<'_>, dice: &mut Dice) {
        let cluster = topology.cluster;
        let pause = Duration::from_millis(50 + dice.roll(250));
        let replica = &cluster.replicas[usize::try_from(dice.roll(2)).unwrap()];
        match self {
            Self::Peace => thread::sleep(pause),
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
