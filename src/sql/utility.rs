//! What kind of statement a parse tree is.

use pg_query::{NodeEnum as N, protobuf as pg};

use super::{
    control::{Isolation, TransactionControl as T},
    settings::PROXY_PREFIX,
    statement::{Action, Ddl, DdlKind, DiscardTarget, StatementKind as K},
    walk::{Walker, is_temporary},
};

/// Names the statement and lets `walker` gather its facts.
pub(super) fn classify<'t>(node: &'t N, walker: &mut Walker<'t>) -> K {
    query(node, walker)
        .or_else(|| wrapper(node, walker))
        .or_else(|| session(node, walker))
        .or_else(|| maintenance(node, walker))
        .unwrap_or_else(|| definition(node))
}

fn query<'t>(node: &'t N, walker: &mut Walker<'t>) -> Option<K> {
    let kind = match node {
        N::SelectStmt(_) => K::Select,
        N::InsertStmt(_) => K::Insert,
        N::UpdateStmt(_) => K::Update,
        N::DeleteStmt(_) => K::Delete,
        N::MergeStmt(_) => K::Merge,
        _ => return None,
    };
    walker.statement_node(node);
    Some(kind)
}

/// Statements that hold another.
fn wrapper<'t>(node: &'t N, walker: &mut Walker<'t>) -> Option<K> {
    match node {
        N::CopyStmt(copy) => Some(copy_kind(copy, walker)),
        N::ExplainStmt(explain) => {
            let inner = inner(&explain.query, walker);
            let analyze = is_option_on(&explain.options, "analyze");
            Some(K::Explain { analyze, inner: Box::new(inner) })
        }
        N::CreateTableAsStmt(create) => {
            let temporary = create.into.as_ref().is_some_and(|into| is_temporary(&into.rel));
            let inner = inner(&create.query, walker);
            Some(K::CreateTableAs { temporary, execute: inner == K::Execute })
        }
        N::DeclareCursorStmt(declare) => {
            inner(&declare.query, walker);
            Some(K::Declare { hold: declare.options & CURSOR_OPT_HOLD != 0 })
        }
        N::PrepareStmt(prepare) => {
            inner(&prepare.query, walker);
            Some(K::Prepare)
        }
        N::CallStmt(call) => {
            if let Some(call) = &call.funccall {
                walker.call(call);
            }
            Some(K::Call)
        }
        N::ExecuteStmt(execute) => {
            walker.list(&execute.params);
            Some(K::Execute)
        }
        _ => None,
    }
}

/// `CURSOR_OPT_HOLD` of `nodes/parsenodes.h`.
const CURSOR_OPT_HOLD: i32 = 0x0020;

fn inner<'t>(query: &'t Option<Box<pg::Node>>, walker: &mut Walker<'t>) -> K {
    match query.as_ref().and_then(|node| node.node.as_ref()) {
        Some(node) => {
            let kind = classify(node, walker);
            match (kind, walker.into) {
                (K::Select, Some(temporary)) => K::CreateTableAs { temporary, execute: false },
                (kind, _) => kind,
            }
        }
        None => K::Unknown,
    }
}

fn copy_kind<'t>(copy: &'t pg::CopyStmt, walker: &mut Walker<'t>) -> K {
    walker.boxed(&copy.where_clause);
    if copy.is_from {
        walker.target(&copy.relation, Action::Insert, None);
        return K::CopyFrom;
    }
    walker.boxed(&copy.query);
    if let Some(relation) = &copy.relation {
        walker.read(relation);
    }
    K::CopyTo { on_server: copy.is_program || !copy.filename.is_empty() }
}

/// Statements about the session and its transaction.
fn session<'t>(node: &'t N, walker: &mut Walker<'t>) -> Option<K> {
    let kind = match node {
        N::TransactionStmt(statement) => transaction(statement),
        N::VariableSetStmt(set) => set_kind(set),
        N::VariableShowStmt(show) => show_kind(&show.name),
        N::ConstraintsSetStmt(_) => K::SetConstraints,
        N::DiscardStmt(discard) => K::Discard(match pg::DiscardMode::try_from(discard.target) {
            Ok(pg::DiscardMode::DiscardPlans) => DiscardTarget::Plans,
            Ok(pg::DiscardMode::DiscardSequences) => DiscardTarget::Sequences,
            Ok(pg::DiscardMode::DiscardTemp) => DiscardTarget::Temp,
            _ => DiscardTarget::All,
        }),
        N::DeallocateStmt(deallocate) => {
            let name = Some(deallocate.name.as_str()).filter(|name| !name.is_empty());
            K::Deallocate { name: name.map(Into::into) }
        }
        N::FetchStmt(fetch) if fetch.ismove => K::Move,
        N::FetchStmt(_) => K::Fetch,
        N::ClosePortalStmt(_) => K::Close,
        N::ListenStmt(listen) => K::Listen { channel: listen.conditionname.as_str().into() },
        N::UnlistenStmt(unlisten) => {
            let channel = Some(unlisten.conditionname.as_str()).filter(|name| !name.is_empty());
            K::Unlisten { channel: channel.map(Into::into) }
        }
        N::NotifyStmt(_) => K::Notify,
        N::LoadStmt(_) => K::Load,
        N::DoStmt(_) => K::Do,
        N::LockStmt(lock) => {
            walker.list(&lock.relations);
            K::Lock
        }
        _ => return None,
    };
    Some(kind)
}

fn transaction(statement: &pg::TransactionStmt) -> K {
    use pg::TransactionStmtKind as S;
    let control = match S::try_from(statement.kind) {
        Ok(S::TransStmtBegin | S::TransStmtStart) => {
            let modes = Modes::read(&statement.options);
            T::Begin { read_only: modes.read_only, isolation: modes.isolation, deferrable: modes.deferrable }
        }
        Ok(S::TransStmtCommit) => T::Commit { chain: statement.chain },
        Ok(S::TransStmtRollback) => T::Rollback { chain: statement.chain },
        Ok(S::TransStmtSavepoint) => T::Savepoint,
        Ok(S::TransStmtRelease) => T::ReleaseSavepoint,
        Ok(S::TransStmtRollbackTo) => T::RollbackToSavepoint,
        Ok(S::TransStmtPrepare) => T::PrepareTransaction(statement.gid.clone()),
        Ok(S::TransStmtCommitPrepared) => T::CommitPrepared(statement.gid.clone()),
        Ok(S::TransStmtRollbackPrepared) => T::RollbackPrepared(statement.gid.clone()),
        Ok(S::Undefined) | Err(_) => return K::Unknown,
    };
    K::Transaction(control)
}

/// Transaction modes as BEGIN and SET TRANSACTION list them.
#[derive(Default)]
struct Modes {
    read_only: Option<bool>,
    isolation: Option<Isolation>,
    deferrable: bool,
}

impl Modes {
    fn read(options: &[pg::Node]) -> Self {
        let mut modes = Self::default();
        for option in options {
            let Some(N::DefElem(option)) = &option.node else {
                continue;
            };
            let value = option.arg.as_ref().and_then(|node| word(node));
            modes.apply(&option.defname, value.as_deref());
        }
        modes
    }

    fn apply(&mut self, name: &str, value: Option<&str>) {
        match name {
            "transaction_read_only" => self.read_only = value.and_then(as_bool),
            "transaction_isolation" => self.isolation = value.and_then(Isolation::from_setting),
            "transaction_deferrable" => self.deferrable = value.and_then(as_bool).unwrap_or(false),
            _ => {}
        }
    }
}

fn set_kind(set: &pg::VariableSetStmt) -> K {
    use pg::VariableSetKind as S;
    let kind = S::try_from(set.kind);
    let name = set.name.to_ascii_lowercase();
    let value = set.args.first().and_then(word);
    match (kind, name.as_str()) {
        (Ok(S::VarResetAll), _) => K::Reset { name: None },
        (Ok(S::VarSetMulti), "transaction") => modes_kind(Modes::read(&set.args)),
        (Ok(S::VarSetMulti), "transaction snapshot") => K::SetSnapshot,
        (Ok(S::VarSetMulti), _) => K::Set { name: name.into(), local: false, default: false },
        (Ok(S::VarSetValue), "transaction_read_only" | "transaction_isolation" | "transaction_deferrable") => {
            let mut modes = Modes::default();
            modes.apply(&name, value.as_deref());
            modes_kind(modes)
        }
        (kind, name) => {
            let default = matches!(kind, Ok(S::VarSetDefault | S::VarReset));
            if let Some(name) = name.strip_prefix(PROXY_PREFIX) {
                let value = value.filter(|_| !default).map(String::into_boxed_str);
                return K::ProxySet { name: name.into(), value, local: set.is_local };
            }
            match kind {
                Ok(S::VarReset) => K::Reset { name: Some(name.into()) },
                _ => K::Set { name: name.into(), local: set.is_local, default },
            }
        }
    }
}

fn modes_kind(modes: Modes) -> K {
    K::Transaction(T::SetTransaction { read_only: modes.read_only, isolation: modes.isolation })
}

fn show_kind(name: &str) -> K {
    let name = name.to_ascii_lowercase();
    match name.strip_prefix(PROXY_PREFIX) {
        Some(name) => K::ProxyShow { name: name.into() },
        None => K::Show { name: name.into() },
    }
}

/// Statements that look after tables.
fn maintenance<'t>(node: &'t N, walker: &mut Walker<'t>) -> Option<K> {
    let kind = match node {
        N::TruncateStmt(truncate) => {
            let cascade = truncate.behavior == pg::DropBehavior::DropCascade as i32;
            for relation in &truncate.relations {
                match &relation.node {
                    Some(N::RangeVar(relation)) => {
                        walker.target(&Some(relation.clone()), Action::Truncate { cascade }, None);
                    }
                    _ => walker.unknown(),
                }
            }
            K::Truncate
        }
        N::RefreshMatViewStmt(refresh) => {
            walker.target(&refresh.relation, Action::Refresh, None);
            K::RefreshMaterializedView { concurrently: refresh.concurrent }
        }
        N::VacuumStmt(vacuum) if vacuum.is_vacuumcmd => K::Vacuum,
        N::VacuumStmt(_) => K::Analyze,
        N::ClusterStmt(_) => K::Cluster,
        N::ReindexStmt(_) => K::Reindex,
        N::CheckPointStmt(_) => K::Checkpoint,
        N::CommentStmt(_) => K::Comment,
        _ => return None,
    };
    Some(kind)
}

/// Definitions; every statement of the grammar that is not named elsewhere changes one.
fn definition(node: &N) -> K {
    let ddl = |kind, transactional| K::Ddl(Ddl { kind, transactional });
    let temporary_or = |relation: &Option<pg::RangeVar>| match is_temporary(relation) {
        true => DdlKind::CreateTemporary,
        false => DdlKind::Other,
    };
    match node {
        N::GrantStmt(_) | N::GrantRoleStmt(_) | N::AlterDefaultPrivilegesStmt(_) => K::Grant,
        N::CreateStmt(create) => ddl(temporary_or(&create.relation), true),
        N::ViewStmt(view) => ddl(temporary_or(&view.view), true),
        N::CreateSeqStmt(create) => ddl(temporary_or(&create.sequence), true),
        N::IndexStmt(index) => ddl(index_kind(index), !index.concurrent),
        N::DropStmt(drop) => match pg::ObjectType::try_from(drop.remove_type) {
            Ok(pg::ObjectType::ObjectIndex) if drop.behavior != pg::DropBehavior::DropCascade as i32 => {
                ddl(DdlKind::PlainIndex, !drop.concurrent)
            }
            _ => ddl(DdlKind::Drop, !drop.concurrent),
        },
        N::CreatedbStmt(_)
        | N::DropdbStmt(_)
        | N::CreateTableSpaceStmt(_)
        | N::DropTableSpaceStmt(_)
        | N::AlterDatabaseStmt(_)
        | N::AlterSystemStmt(_) => ddl(DdlKind::Cluster, false),
        N::CreateRoleStmt(_)
        | N::AlterRoleStmt(_)
        | N::AlterRoleSetStmt(_)
        | N::DropRoleStmt(_)
        | N::AlterDatabaseSetStmt(_)
        | N::AlterDatabaseRefreshCollStmt(_)
        | N::AlterTableSpaceOptionsStmt(_) => ddl(DdlKind::Cluster, true),
        N::AlterTableStmt(alter) => ddl(DdlKind::Other, !detaches_concurrently(alter)),
        // Creating a subscription makes a slot elsewhere; adding a value to an enum was not transactional
        // before PostgreSQL 12.
        N::CreateSubscriptionStmt(_) | N::AlterSubscriptionStmt(_) | N::DropSubscriptionStmt(_) => {
            ddl(DdlKind::Other, false)
        }
        _ => ddl(DdlKind::Other, true),
    }
}

/// An index on plain columns cannot run functions, so it is nothing to the catalog.
fn index_kind(index: &pg::IndexStmt) -> DdlKind {
    let plain = |node: &pg::Node| matches!(&node.node, Some(N::IndexElem(element)) if element.expr.is_none());
    match index.where_clause.is_none() && index.index_params.iter().all(plain) {
        true => DdlKind::PlainIndex,
        false => DdlKind::Other,
    }
}

fn detaches_concurrently(alter: &pg::AlterTableStmt) -> bool {
    alter.cmds.iter().any(|command| match &command.node {
        Some(N::AlterTableCmd(command)) => match command.def.as_ref().and_then(|def| def.node.as_ref()) {
            Some(N::PartitionCmd(partition)) => partition.concurrent,
            _ => false,
        },
        _ => false,
    })
}

/// An option of EXPLAIN: there without a value means on.
fn is_option_on(options: &[pg::Node], name: &str) -> bool {
    options.iter().any(|node| match &node.node {
        Some(N::DefElem(option)) if option.defname == name => match &option.arg {
            None => true,
            // What is no plain "off" may be "on".
            Some(value) => word(value).and_then(|word| as_bool(&word)).unwrap_or(true),
        },
        _ => false,
    })
}

fn as_bool(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" | "t" | "y" | "tr" | "tru" | "ye" => Some(true),
        "off" | "false" | "no" | "0" | "f" | "n" | "of" | "fa" | "fal" | "fals" => Some(false),
        _ => None,
    }
}

/// A constant as text.
fn word(node: &pg::Node) -> Option<String> {
    match node.node.as_ref()? {
        N::AConst(constant) => match constant.val.as_ref()? {
            pg::a_const::Val::Ival(number) => Some(number.ival.to_string()),
            pg::a_const::Val::Fval(number) => Some(number.fval.clone()),
            pg::a_const::Val::Boolval(value) => Some(value.boolval.to_string()),
            pg::a_const::Val::Sval(text) => Some(text.sval.clone()),
            pg::a_const::Val::Bsval(_) => None,
        },
        N::Integer(number) => Some(number.ival.to_string()),
        N::Float(number) => Some(number.fval.clone()),
        N::Boolean(value) => Some(value.boolval.to_string()),
        N::String(text) => Some(text.sval.clone()),
        N::TypeCast(cast) => word(cast.arg.as_ref()?),
        _ => None,
    }
}
