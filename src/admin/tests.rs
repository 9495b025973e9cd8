use std::{
    future::{Future, pending, ready},
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    command::{FlushTarget, RouteTarget, Shutdown},
    rows::{
        AdviceRow, BufferFigures, CacheRow, CacheTableRow, ConfigRow, ConnectionRow, DatabaseRow, ListRow, PinRow,
        PoolRow, QueryRow, ReplicaRow, RouteRow, SlowRow, StatsFigures, StatsRow, UserRow,
    },
    *,
};
use crate::{config::StatsColumns, telemetry::figures::PgbouncerView};

/// A process with one of everything; notes what it is told.
#[derive(Default)]
pub(super) struct Process {
    told: Mutex<Vec<String>>,
    pause_state: PauseState,
    layout: StatsColumns,
    pause_lasts: bool,
    answer: Option<ConsoleError>,
}

impl Process {
    pub(super) fn with_layout(layout: StatsColumns) -> Self {
        Self { layout, ..Self::default() }
    }

    fn note(&self, what: impl Into<String>) {
        self.told.lock().unwrap().push(what.into());
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }

    fn act(&self, what: impl Into<String>) -> Act<'_> {
        self.note(what);
        Box::pin(ready(self.answer.clone().map_or(Ok(()), Err)))
    }
}

fn connection() -> ConnectionRow {
    let time = |seconds: u64| UNIX_EPOCH + Duration::from_secs(1_795_261_341 + seconds);
    ConnectionRow {
        user: Some("app".into()),
        database: Some("shop".into()),
        replication: "none",
        state: "active",
        addr: "10.0.0.7".into(),
        port: 40312,
        local_addr: "10.0.0.1".into(),
        local_port: 6432,
        connect_time: time(0),
        request_time: time(2),
        wait_us: 1_000_020,
        close_needed: false,
        ptr: 0x1f,
        link: Some(0x2f),
        remote_pid: 0,
        tls: "TLSv1.3/x".into(),
        application_name: "psql".into(),
        prepared_statements: 3,
        id: 31,
        buffers: BufferFigures { pkt_avail: 9, ..BufferFigures::default() },
    }
}

impl PgbouncerView for Process {
    fn version(&self) -> String {
        VERSION.to_owned()
    }
    fn pools(&self) -> Vec<PoolRow> {
        vec![PoolRow {
            database: "shop".into(),
            user: "app".into(),
            cl_active: 3,
            cl_waiting: 1,
            sv_active: 2,
            sv_idle: 4,
            maxwait_us: 2_500_000,
            pool_mode: "transaction".into(),
            ..PoolRow::default()
        }]
    }
    fn databases(&self) -> Vec<DatabaseRow> {
        vec![DatabaseRow {
            name: "shop".into(),
            host: Some("db1".into()),
            port: 5432,
            database: "shop".into(),
            pool_size: 20,
            server_lifetime: 3600,
            current_connections: 6,
            current_client_connections: 4,
            paused: true,
            ..DatabaseRow::default()
        }]
    }
    fn stats(&self) -> Vec<StatsRow> {
        let figures = |first: u64| StatsFigures::from_values(std::array::from_fn(|index| first + index as u64));
        let row = |database: &str| StatsRow { database: database.into(), totals: figures(1), averages: figures(101) };
        vec![row("shop"), row("shop2")]
    }
    fn lists(&self) -> Vec<ListRow> {
        vec![ListRow { list: "databases", items: 2 }]
    }
    fn config_number(&self, _key: &str) -> Option<f64> {
        None
    }
}

impl ConsoleState for Process {
    fn clients(&self) -> Vec<ConnectionRow> {
        vec![connection()]
    }
    fn servers(&self) -> Vec<ConnectionRow> {
        vec![ConnectionRow {
            user: None,
            database: None,
            state: "new",
            link: None,
            request_time: SystemTime::UNIX_EPOCH,
            buffers: BufferFigures::default(),
            ..connection()
        }]
    }
    fn users(&self) -> Vec<UserRow> {
        vec![UserRow { name: "app".into(), pool_size: Some(10), ..UserRow::default() }]
    }
    fn config(&self) -> Vec<ConfigRow> {
        let value = Some("100".to_owned());
        let key = "max_client_conn".to_owned();
        vec![ConfigRow { key, value: value.clone(), default: value, changeable: true }]
    }
    fn stats_columns(&self) -> StatsColumns {
        self.layout
    }
    fn pause_state(&self) -> PauseState {
        self.pause_state
    }
    fn replicas(&self) -> Vec<ReplicaRow> {
        let (lag_seconds, lsn) = (Some(0.25), Some("0/10".to_owned()));
        vec![ReplicaRow { lag_seconds, lsn, ..ReplicaRow::default() }]
    }
    fn cache(&self) -> Vec<CacheRow> {
        vec![CacheRow::default()]
    }
    fn cache_tables(&self) -> Vec<CacheTableRow> {
        vec![CacheTableRow::default()]
    }
    fn cache_advice(&self, _count: usize) -> Vec<AdviceRow> {
        Vec::new()
    }
    fn queries(&self, _count: usize) -> Vec<QueryRow> {
        Vec::new()
    }
    fn slow(&self, _count: usize) -> Vec<SlowRow> {
        Vec::new()
    }
    fn pins(&self) -> Vec<PinRow> {
        vec![PinRow::default()]
    }
    fn route(&self, target: Option<&RouteTarget>, sql: &str) -> Result<Vec<RouteRow>, ConsoleError> {
        let database = target.map(|target| &target.database);
        match database {
            None => Err(ConsoleError::RouteDatabaseNeeded),
            Some(_) => Ok(vec![RouteRow { statement: format!("{database:?} {sql}"), ..RouteRow::default() }]),
        }
    }
    fn reload(&self) -> Act<'_> {
        self.act("reload")
    }
    fn set<'a>(&'a self, key: &'a str, value: &'a str) -> Act<'a> {
        self.act(format!("set {key} to {value}"))
    }
    fn pause(&self, database: Option<&str>) -> Result<PauseTicket, ConsoleError> {
        self.note(format!("pause {database:?}"));
        Ok(PauseTicket { database: database.map(str::to_owned), number: 7 })
    }
    fn paused<'a>(&'a self, _ticket: &'a PauseTicket) -> Act<'a> {
        if self.pause_lasts { Box::pin(pending()) } else { Box::pin(ready(self.answer.clone().map_or(Ok(()), Err))) }
    }
    fn suspend(&self) -> Result<PauseTicket, ConsoleError> {
        self.note("suspend");
        Ok(PauseTicket { database: None, number: 8 })
    }
    fn suspended<'a>(&'a self, ticket: &'a PauseTicket) -> Act<'a> {
        self.paused(ticket)
    }
    fn take_back_pause(&self, ticket: &PauseTicket) {
        self.note(format!("take back pause {} of {:?}", ticket.number, ticket.database));
    }
    fn resume<'a>(&'a self, database: Option<&'a str>) -> Act<'a> {
        self.act(format!("resume {database:?}"))
    }
    fn kill<'a>(&'a self, database: Option<&'a str>) -> Act<'a> {
        self.act(format!("kill {database:?}"))
    }
    fn kill_client(&self, id: u64) -> Act<'_> {
        self.act(format!("kill client {id}"))
    }
    fn reconnect<'a>(&'a self, database: Option<&'a str>) -> Act<'a> {
        self.act(format!("reconnect {database:?}"))
    }
    fn wait_close<'a>(&'a self, database: Option<&'a str>) -> Act<'a> {
        self.act(format!("wait close {database:?}"))
    }
    fn disable<'a>(&'a self, database: &'a str) -> Act<'a> {
        self.act(format!("disable {database}"))
    }
    fn enable<'a>(&'a self, database: &'a str) -> Act<'a> {
        self.act(format!("enable {database}"))
    }
    fn shutdown(&self, mode: Shutdown) -> Act<'_> {
        self.act(format!("shutdown {mode:?}"))
    }
    fn flush_cache<'a>(&'a self, target: &'a FlushTarget) -> Act<'a> {
        self.act(format!("flush {target:?}"))
    }
    fn ban<'a>(&'a self, member: &'a str) -> Act<'a> {
        self.act(format!("ban {member}"))
    }
    fn unban<'a>(&'a self, member: &'a str) -> Act<'a> {
        self.act(format!("unban {member}"))
    }
}

async fn run(process: Process, text: &str, privilege: Privilege) -> (Outcome, Vec<String>) {
    let process = Arc::new(process);
    let outcome = Console::new(Arc::clone(&process) as _).run(text, privilege, &Notify::new()).await;
    (outcome, process.told())
}

/// An administrator's command: the tag, and what the process was told.
async fn check(text: &str, tag: &str, told: &str) {
    let (outcome, heard) = run(Process::default(), text, Privilege::Admin).await;
    assert_eq!(outcome, done(tag, None), "{text}");
    assert_eq!(heard, [told], "{text}");
}

async fn check_error(process: Process, text: &str, sqlstate: &str, message: &str) {
    let (outcome, _) = run(process, text, Privilege::Admin).await;
    let Outcome::Failed(error) = outcome else { panic!("{text}: {outcome:?}") };
    assert_eq!((error.sqlstate(), error.to_string().as_str()), (sqlstate, message), "{text}");
}

#[tokio::test]
async fn commands_answer_with_their_own_name() {
    check("RELOAD", "RELOAD", "reload").await;
    check("pause;", "PAUSE", "pause None").await;
    check("PAUSE shop", "PAUSE", "pause Some(\"shop\")").await;
    check("SUSPEND", "SUSPEND", "suspend").await;
    check("RESUME shop", "RESUME", "resume Some(\"shop\")").await;
    check("SET query_timeout = '5'", "SET query_timeout=5", "set query_timeout to 5").await;
    check("SHUTDOWN WAIT_FOR_SERVERS", "SHUTDOWN", "shutdown WaitForServers").await;
    check("FLUSH CACHE shop", "FLUSH CACHE", "flush Database(\"shop\")").await;
    check("KILL", "KILL", "kill None").await;
    check("KILL shop", "KILL", "kill Some(\"shop\")").await;
    check("KILL_CLIENT 7", "KILL_CLIENT", "kill client 7").await;
    check("RECONNECT \"my shop\"", "RECONNECT", "reconnect Some(\"my shop\")").await;
    check("WAIT_CLOSE", "WAIT_CLOSE", "wait close None").await;
    check("DISABLE shop", "DISABLE", "disable shop").await;
    check("ENABLE shop", "ENABLE", "enable shop").await;
    check("BAN shop.r1", "BAN", "ban shop.r1").await;
    check("UNBAN shop.r1", "UNBAN", "unban shop.r1").await;
}

#[tokio::test]
async fn a_shutdown_at_once_is_not_answered() {
    let (outcome, told) = run(Process::default(), "SHUTDOWN", Privilege::Admin).await;
    assert_eq!(outcome, Outcome::Silent);
    assert_eq!(told, ["shutdown Immediate"]);
}

#[tokio::test]
async fn a_stats_user_may_look_but_not_touch() {
    for text in [
        "RELOAD",
        "PAUSE",
        "RESUME",
        "SET x = y",
        "SHUTDOWN",
        "KILL",
        "KILL_CLIENT 1",
        "RECONNECT",
        "WAIT_CLOSE",
        "DISABLE shop",
        "ENABLE shop",
        "SUSPEND",
        "SHOW FDS",
        "BAN shop.r1",
        "FLUSH CACHE",
    ] {
        let (outcome, told) = run(Process::default(), text, Privilege::Stats).await;
        assert_eq!(outcome, Outcome::Failed(ConsoleError::AdminNeeded), "{text}");
        assert!(told.is_empty(), "{text}");
    }
    for text in ["SHOW STATS", "SHOW timezone", "SHOW REPLICAS"] {
        let (outcome, _) = run(Process::default(), text, Privilege::Stats).await;
        assert!(matches!(outcome, Outcome::Table(_)), "{text}: {outcome:?}");
    }
    let (outcome, _) = run(Process::default(), "SET timezone = 'x'", Privilege::Stats).await;
    assert_eq!(outcome, done("SET", Some(SET_IGNORED)));
}

#[tokio::test]
async fn what_is_not_built_says_so() {
    check_error(Process::default(), "SHOW FDS", "0A000", "command not supported").await;
}

#[tokio::test]
async fn errors_are_worded_as_pgbouncer_words_them() {
    let fine = Process::default;
    check_error(fine(), "DISABLE", "08P01", "a database is required").await;
    check_error(fine(), "PAUSE pgbouncer", "08P01", "cannot pause admin db: pgbouncer").await;
    check_error(fine(), "KILL pgweir", "08P01", "cannot kill admin db: pgweir").await;
    check_error(fine(), "RECONNECT pgbouncer", "08P01", "cannot reconnect admin db: pgbouncer").await;
    check_error(fine(), "WAIT_CLOSE pgbouncer", "08P01", "cannot wait in admin db: pgbouncer").await;
    check_error(fine(), "DISABLE pgbouncer", "08P01", "cannot disable admin db: pgbouncer").await;
    check_error(fine(), "ENABLE pgbouncer", "08P01", "cannot enable admin db: pgbouncer").await;
    check_error(fine(), "ENABLE", "08P01", "a database is required").await;
    check_error(fine(), "KILL_CLIENT", "08P01", "invalid client pointer supplied").await;
    check_error(fine(), "KILL_CLIENT x", "08P01", "invalid client pointer supplied").await;
    check_error(fine(), "SELECT 1", "08P01", "invalid command 'SELECT 1', use SHOW HELP;").await;
    let paused = || Process { pause_state: PauseState::Paused, ..Process::default() };
    check_error(paused(), "PAUSE", "08P01", "already suspended/paused").await;
    check_error(paused(), "PAUSE shop", "08P01", "already suspended/paused").await;
    check_error(paused(), "KILL", "08P01", "already suspended/paused").await;
    let answering = |error| Process { answer: Some(error), ..Process::default() };
    let resumed = "resumed by another command";
    check_error(answering(ConsoleError::Resumed), "PAUSE shop", "57014", resumed).await;
    let not_paused = answering(ConsoleError::NotPaused);
    check_error(not_paused, "RESUME", "08P01", "pooler is not paused/suspended").await;
    let unknown = answering(ConsoleError::NoSuchDatabase("x".into()));
    check_error(unknown, "RESUME x", "08P01", "no such database: x").await;
    let broken = answering(ConsoleError::ReloadFailed);
    let message = "RELOAD failed, see logs for additional details";
    check_error(broken, "RELOAD", "F0000", message).await;
    let refused = answering(ConsoleError::SetFailed);
    check_error(refused, "SET x = y", "08P01", "SET failed").await;
}

#[tokio::test]
async fn help_is_a_notice() {
    let (outcome, _) = run(Process::default(), "SHOW HELP", Privilege::Stats).await;
    let Outcome::Done { tag, notice: Some(notice) } = outcome else { panic!("{outcome:?}") };
    assert_eq!((tag.as_str(), notice.message), ("SHOW", "Console usage"));
    assert!(notice.detail.is_some_and(|detail| detail.contains("\tSHOW ROUTE")));
}

#[test]
fn a_pause_that_is_cancelled_is_taken_back_and_one_whose_console_leaves_is_not() {
    for (is_cancelled, expected) in [(true, &["pause None", "take back pause 7 of None"][..]), (false, &["pause None"])]
    {
        let process = Arc::new(Process { pause_lasts: true, ..Process::default() });
        let (console, cancelled) = (Console::new(Arc::clone(&process) as _), Notify::new());
        {
            let mut waiting = pin!(console.run("PAUSE", Privilege::Admin, &cancelled));
            let mut context = Context::from_waker(Waker::noop());
            assert!(waiting.as_mut().poll(&mut context).is_pending());
            if is_cancelled {
                cancelled.notify_one();
                let Poll::Ready(outcome) = waiting.as_mut().poll(&mut context) else { panic!("it goes on waiting") };
                assert_eq!(outcome, Outcome::Failed(ConsoleError::Cancelled));
            }
        }
        assert_eq!(process.told(), expected);
    }
}

#[test]
fn columns_are_known_without_running_anything() {
    let console = Console::new(Arc::new(Process::default()));
    assert_eq!(console.columns("show lists;").map(<[_]>::len), Some(2));
    for text in ["SHOW HELP", "RELOAD", "nonsense"] {
        assert_eq!(console.columns(text), None);
    }
}
