//! The ways to write.

use super::{
    checker::Outcome,
    session::{Lost, Session},
    support::{
        Reply,
        frames::{bind, copy_data, copy_done, describe_portal, execute, flush, parse, query, sync},
    },
    world::{FAMILIES, Family, bump, place},
};

/// A way to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Simple,
    Extended,
    /// Prepared once, bound again and again.
    Named,
    /// `Execute` asks for one row.
    OneRow,
    Pipelined,
    /// Between other statements of one string.
    Several,
    CommitInside,
    CommitThenFail,
    /// The commit is visible long before the client hears of it.
    CommitThenSleep,
    /// The client hears of the commit before it has sent its `Sync`.
    CommitThenFlush,
    Block,
    ExtendedBlock,
    /// BEGIN, write and COMMIT before one `Sync`.
    Batch,
    /// BEGIN and write before one `Sync`, COMMIT before the next.
    TwoBatches,
    RolledBack,
    Savepoints,
    Cte,
    Merge,
    Explain,
    SqlPrepare,
    Do,
    DeferredFailure,
    TwoPhase,
    TwoPhaseBack,
    Notify,
    Upsert,
    InsertSelect,
    Function,
    SqlFunction,
    Call,
    DeleteInsert,
    Transfer,
    Item,
    ItemBlock,
    Refill,
    Refresh,
    Drop,
    Swing,
    Alter,
    /// The client is gone before it is told.
    Vanish,
    VanishAtCommit,
}

use Form::*;

const ANY_DOOR: [Form; 23] = [
    Simple,
    Extended,
    Named,
    OneRow,
    Pipelined,
    Several,
    CommitInside,
    CommitThenFail,
    CommitThenSleep,
    CommitThenFlush,
    Block,
    ExtendedBlock,
    Batch,
    TwoBatches,
    RolledBack,
    Savepoints,
    Explain,
    SqlPrepare,
    Do,
    DeferredFailure,
    TwoPhase,
    TwoPhaseBack,
    Notify,
];

/// The ways to write a family.
pub fn forms(family: Family) -> Vec<Form> {
    let more: &[Form] = match family.name {
        "plain" => &[Cte, Merge, Upsert],
        "ordinary" => &[Cte, InsertSelect, Function, SqlFunction, Call, DeleteInsert],
        "account" => &[Transfer],
        "kin" => &[Item, ItemBlock],
        "refreshed" => &[Refresh],
        "dropped" => &[Drop],
        "swung" => &[Swing],
        "altered" => &[Alter],
        "filled" => &[Refill],
        "parted" | "source" | "late" => &[Cte, Merge],
        "viewed" | "ancestor" | "base" => &[Cte],
        _ => &[],
    };
    let any: &[Form] = if family.doors.is_empty() { &[] } else { &ANY_DOOR };
    any.iter().chain(more).copied().collect()
}

/// Ends that mean that nothing has happened.
const ABORTED: [&str; 7] = ["40P01", "40001", "23503", "22012", "25P02", "55P03", "42P01"];

/// What is written: a row, by a statement.
struct Target {
    family: Family,
    key: u16,
    door: String,
    id: i64,
    update: String,
}

impl Session<'_> {
    /// Writes in one of the ways of the plan.
    pub fn write(&mut self) -> Result<(), Lost> {
        let (family, form) = *self.dice.pick(&self.shared.plan.writes);
        self.write_as(family, form)
    }

    pub fn write_as(&mut self, family: Family, form: Form) -> Result<(), Lost> {
        if self.settings.is_stranger && !(family.name == "plain" && ANY_DOOR.contains(&form) && form != DeferredFailure)
        {
            return Ok(());
        }
        let Some(target) = self.target(family) else { return Ok(()) };
        self.client()?;
        let (id, began) = (target.id, self.now());
        self.draft.clear();
        let outcome = self.carry_out(&target, form);
        let ended = self.now();
        match outcome {
            Ok((outcome, told)) => self.finish(id, began, told.unwrap_or(ended), outcome),
            Err(Lost) => {
                self.finish(id, began, ended, Outcome::Unknown);
                return Err(Lost);
            }
        }
        Ok(())
    }

    fn target(&mut self, family: Family) -> Option<Target> {
        let key = if family.owned { self.number } else { self.dice.key(family.keys) };
        if key >= family.keys {
            return None;
        }
        let id = self.next_write();
        let door = if family.doors.is_empty() { "" } else { *self.dice.pick(family.doors) };
        let door = self.called(&place(door, key));
        let update = bump(&door, &key.to_string(), &id.to_string());
        Some(Target { family, key, door, id, update })
    }

    /// The outcome, and when the client was told of it if not now.
    fn carry_out(&mut self, target: &Target, form: Form) -> Result<(Outcome, Option<u64>), Lost> {
        let (key, id) = (target.key.to_string(), target.id.to_string());
        let Target { family, door, update, .. } = target;
        let selected = format!("select k, v from {} where k = {key}", door.trim_start_matches("only "));
        let outcome = match form {
            Simple => self.one(*family, update)?,
            Extended => {
                let sql = bump(door, "$1::int", "$2::bigint");
                self.batch(*family, &[parse("", &sql), bind("", &[&key, &id]), describe_portal(""), execute("", 0)])?
            }
            Named => {
                let name = format!("w {door} {}", self.settings.path);
                let sql = bump(door, "$1::int", "$2::bigint");
                if self.prepared.insert(name.clone()) {
                    self.ask(&[parse(&name, &sql), sync()].concat(), 1)?;
                }
                self.batch(*family, &[bind(&name, &[&key, &id]), execute("", 0)])?
            }
            OneRow => self.batch(*family, &[parse("", update), bind("", &[]), execute("", 1)])?,
            Pipelined => {
                let select = [parse("", "select 1"), bind("", &[]), execute("", 0), sync()].concat();
                let replies = self.ask(&[select.clone(), query(update), select, query("select 1")].concat(), 4)?;
                self.judge(*family, &replies[1])?
            }
            Several => self.one(*family, &format!("select 1; {update}; select 1"))?,
            CommitInside => self.one(*family, &format!("begin; {update}; commit; select 1"))?,
            CommitThenFail => {
                let reply = self.say(&format!("begin; {update}; commit; select 1/0"))?;
                match reply.tags().iter().any(|tag| tag == "COMMIT") {
                    true => {
                        self.take(*family, &reply);
                        Outcome::Committed
                    }
                    false => self.failed(&reply)?,
                }
            }
            CommitThenSleep => self.one(*family, &format!("begin; {update}; commit; select pg_sleep(0.01)"))?,
            CommitThenFlush => return self.commit_then_flush(target),
            Block | RolledBack | Savepoints | DeferredFailure | Notify => self.block(target, form)?,
            ExtendedBlock => {
                let say = |sql: &str| [parse("", sql), bind("", &[]), execute("", 0), sync()].concat();
                self.ask(&say("begin"), 1)?;
                let reply = self.ask(&say(update), 1)?.remove(0);
                let ended = self.ask(&say("commit"), 1)?.remove(0);
                self.judge_block(*family, &[reply], &ended)?
            }
            Batch => {
                let step = |sql: &str| [parse("", sql), bind("", &[]), execute("", 0)].concat();
                self.batch(*family, &[step("begin"), step(update), step("commit")])?
            }
            TwoBatches => {
                let step = |sql: &str| [parse("", sql), bind("", &[]), execute("", 0)].concat();
                let reply = self.ask(&[step("begin"), step(update), sync()].concat(), 1)?.remove(0);
                let ended = self.ask(&[step("commit"), sync()].concat(), 1)?.remove(0);
                self.judge_block(*family, &[reply], &ended)?
            }
            Cte => self.one(*family, &format!("with u as ({update}) select k, v from u"))?,
            Merge => {
                let merge = format!(
                    "merge into {door} using (values ({key})) s(key) on {door}.k = s.key
                     when matched then update set v = {door}.v + 1, w = {id}"
                );
                self.one(*family, &format!("begin; {merge}; {selected}; commit"))?
            }
            Explain => self.one(*family, &format!("begin; explain analyze {update}; {selected}; commit"))?,
            SqlPrepare => self.one(*family, &format!("prepare p as {update}; execute p; deallocate p"))?,
            Do => self.run_block(target)?,
            TwoPhase | TwoPhaseBack => self.two_phase(target, form == TwoPhase)?,
            Upsert => self.one(
                *family,
                &format!(
                    "insert into {door} values ({key}, 0, {id}) on conflict (k)
                     do update set v = {door}.v + 1, w = excluded.w returning k, v"
                ),
            )?,
            InsertSelect => self.one(
                *family,
                &format!(
                    "insert into ordinary select k, v, {id} from ordinary where k = {key} on conflict (k)
                     do update set v = ordinary.v + 1, w = excluded.w returning k, v"
                ),
            )?,
            Function => self.either(*family, &format!("select * from bump_ordinary({key}, {id})"))?,
            SqlFunction => self.either(*family, &format!("select kk, vv from bump_by_sql({key}, {id})"))?,
            Call => self.either(*family, &format!("call bump_and_commit({key}, null, {id})"))?,
            DeleteInsert => self.one(
                *family,
                &format!(
                    "with gone as (delete from ordinary where k = {key} returning k, v)
                     insert into ordinary select k, v + 1, {id} from gone returning k, v"
                ),
            )?,
            Transfer => {
                let other = (target.key + 1) % family.keys;
                let sql = format!(
                    "update account set v = v + 1, w = {id}, amount = amount + case k when {key} then -7 else 7 end
                     where k in ({key}, {other}) returning k, v"
                );
                self.either(*family, &sql)?
            }
            Item => self.either(*family, &format!("select k, v from add_item({key}, {id})"))?,
            ItemBlock => self.one(
                *family,
                &format!("begin; insert into item values ({id}, {key}); select k, v from kin where k = {key}; commit"),
            )?,
            Refill => self.refill(target)?,
            Refresh => {
                let update = bump("refreshed", &key, &id);
                self.one(*family, &format!("begin; {update}; refresh materialized view snap; commit"))?
            }
            Drop => self.drop_and_create(target)?,
            Swing => self.swing(target)?,
            Alter => {
                let update = bump("altered", &key, &id);
                self.one(*family, &format!("begin; alter table altered add column extra int default 5; {update}; alter table altered drop column extra; commit"))?
            }
            Vanish => {
                self.client()?.try_send(&query(update)).map_err(|_| Lost)?;
                self.vanish();
                return Err(Lost);
            }
            VanishAtCommit => {
                self.say("begin")?;
                let reply = self.say(update)?;
                self.take(*family, &reply);
                self.client()?.try_send(&query("commit")).map_err(|_| Lost)?;
                self.vanish();
                return Err(Lost);
            }
        };
        Ok((outcome, None))
    }

    /// What rows of two or three numbers say about versions.
    fn take(&mut self, family: Family, reply: &Reply) {
        for row in reply.rows().iter().filter(|row| row.len() > 1) {
            if let (Ok(key), Ok(version)) = (row[0].parse(), row[1].parse()) {
                self.draft.push((family.cell(key), version));
            }
        }
    }

    fn failed(&mut self, reply: &Reply) -> Result<Outcome, Lost> {
        let code = reply.sqlstate();
        if reply.status() != 'I' {
            self.say("rollback")?;
        }
        assert!(ABORTED.contains(&&*code) || code.starts_with("57P") || code.starts_with("08"), "{reply:?}");
        // A write that failed has written nothing, whatever its first statements returned.
        let is_aborted = ABORTED.contains(&&*code);
        if is_aborted {
            self.draft.clear();
        }
        Ok(if is_aborted { Outcome::Aborted } else { Outcome::Unknown })
    }

    fn judge(&mut self, family: Family, reply: &Reply) -> Result<Outcome, Lost> {
        if reply.error().is_some() {
            return self.failed(reply);
        }
        self.take(family, reply);
        Ok(Outcome::Committed)
    }

    /// One simple query.
    fn one(&mut self, family: Family, sql: &str) -> Result<Outcome, Lost> {
        let reply = self.say(sql)?;
        self.judge(family, &reply)
    }

    fn batch(&mut self, family: Family, steps: &[Vec<u8>]) -> Result<Outcome, Lost> {
        let reply = self.ask(&[steps.concat(), sync()].concat(), 1)?.remove(0);
        self.judge(family, &reply)
    }

    /// By one of the protocols.
    fn either(&mut self, family: Family, sql: &str) -> Result<Outcome, Lost> {
        match self.dice.roll(2) {
            0 => self.one(family, sql),
            _ => self.batch(family, &[parse("", sql), bind("", &[]), describe_portal(""), execute("", 0)]),
        }
    }

    fn judge_block(&mut self, family: Family, replies: &[Reply], ended: &Reply) -> Result<Outcome, Lost> {
        for reply in replies.iter().chain([ended]) {
            if reply.error().is_some() {
                return self.failed(reply);
            }
            self.take(family, reply);
        }
        Ok(Outcome::Committed)
    }

    /// An explicit transaction over up to three cells, some of which may be taken back.
    fn block(&mut self, target: &Target, form: Form) -> Result<Outcome, Lost> {
        let doors: Vec<Family> =
            FAMILIES.into_iter().filter(|family| !family.doors.is_empty() && !family.owned).collect();
        let mut updates = vec![(target.family, target.key, target.door.clone())];
        for _ in 0..self.dice.roll(3) {
            let family = *self.dice.pick(&doors);
            let key = self.dice.key(family.keys);
            let door = *self.dice.pick(family.doors);
            let door = self.called(&place(door, key));
            if self.shared.plan.families.contains(&family) && !self.settings.is_stranger {
                updates.push((family, key, door));
            }
        }
        updates.sort_by_key(|(family, key, _)| family.cell(*key));
        updates.dedup_by_key(|(family, key, _)| family.cell(*key));
        let id = target.id.to_string();
        self.say("begin")?;
        for (family, key, door) in updates {
            let update = bump(&door, &key.to_string(), &id);
            let is_undone = form == Savepoints && self.dice.one_in(2);
            if is_undone {
                self.say("savepoint s")?;
            }
            let reply = self.say(&update)?;
            if reply.error().is_some() {
                return self.failed(&reply);
            }
            if is_undone {
                self.say("rollback to s")?;
                continue;
            }
            self.take(family, &reply);
            if form == Notify {
                let row = &reply.rows()[0];
                let cell = family.cell(row[0].parse().unwrap()).0;
                let payload = format!("{cell} {} {id}", row[1]);
                let said = match self.dice.roll(2) {
                    0 => self.say(&format!("notify staleness, '{payload}'"))?,
                    _ => self.say(&format!("select pg_notify('staleness', '{payload}')"))?,
                };
                assert!(said.error().is_none(), "{said:?}");
            }
        }
        if form == DeferredFailure {
            self.say("insert into strict values (-1)")?;
        }
        let ended = self.say(if form == RolledBack { "rollback" } else { "commit" })?;
        if ended.error().is_some() {
            return self.failed(&ended);
        }
        Ok(if ended.tags() == ["COMMIT"] { Outcome::Committed } else { Outcome::Aborted })
    }

    fn commit_then_flush(&mut self, target: &Target) -> Result<(Outcome, Option<u64>), Lost> {
        self.say("begin")?;
        let reply = self.say(&target.update)?;
        if reply.error().is_some() {
            return Ok((self.failed(&reply)?, None));
        }
        self.take(target.family, &reply);
        let messages = [parse("", "commit"), bind("", &[]), execute("", 0), flush()].concat();
        self.client()?.try_send(&messages).map_err(|_| Lost)?;
        let frames = self.until(b'C')?;
        let told = self.now();
        assert!(frames.iter().all(|frame| frame.tag != b'E'), "{frames:?}");
        // Reads of others get their chance before the end of the batch.
        let pause = self.dice.roll(10);
        std::thread::sleep(std::time::Duration::from_millis(pause));
        self.ask(&sync(), 1)?;
        Ok((Outcome::Committed, Some(told)))
    }

    /// DO, which tells the version by a notice.
    fn run_block(&mut self, target: &Target) -> Result<Outcome, Lost> {
        let returning = target.update.trim_end_matches("k, v");
        let reply = self.say(&format!(
            "do $$ declare version bigint; begin {returning} v into version; raise notice '%', version; end $$"
        ))?;
        if reply.error().is_some() {
            return self.failed(&reply);
        }
        let versions = reply.notices().into_iter().filter_map(|text| text.parse().ok());
        let cell = target.family.cell(target.key);
        self.draft.extend(versions.map(|version| (cell, version)));
        Ok(Outcome::Committed)
    }

    fn two_phase(&mut self, target: &Target, commits: bool) -> Result<Outcome, Lost> {
        self.say("begin")?;
        let reply = self.say(&target.update)?;
        if reply.error().is_some() {
            return self.failed(&reply);
        }
        self.take(target.family, &reply);
        let gid = format!("gid{}", target.id);
        let prepared = self.say(&format!("prepare transaction '{gid}'"))?;
        // It must not be left behind, whatever happens to this connection.
        let end = if commits { "commit" } else { "rollback" };
        if prepared.error().is_some() {
            self.draft.clear();
            return Ok(Outcome::Aborted);
        }
        let ended = self.say(&format!("{end} prepared '{gid}'"))?;
        if ended.error().is_some() {
            // It took so long that it was cleared up.
            assert_eq!(ended.sqlstate(), "42704", "{ended:?}");
            self.draft.clear();
        }
        let is_committed = commits && ended.error().is_none();
        Ok(if is_committed { Outcome::Committed } else { Outcome::Aborted })
    }

    /// TRUNCATE, and COPY of the next version of every row.
    fn refill(&mut self, target: &Target) -> Result<Outcome, Lost> {
        self.say("begin")?;
        let locked = self.say("lock table filled in access exclusive mode")?;
        if locked.error().is_some() {
            return self.failed(&locked);
        }
        let rows = self.say("select k, v from filled")?.rows();
        let mut lines = String::new();
        for row in rows {
            let (key, version): (u16, i64) = (row[0].parse().unwrap(), row[1].parse::<i64>().unwrap() + 1);
            lines += &format!("{key}\t{version}\t{}\n", target.id);
            self.draft.push((target.family.cell(key), version));
        }
        self.say("truncate filled")?;
        self.client()?.try_send(&query("copy filled from stdin")).map_err(|_| Lost)?;
        self.until(b'G')?;
        self.ask(&[copy_data(lines.as_bytes()), copy_done()].concat(), 1)?;
        let end = if self.dice.one_in(4) { "rollback" } else { "commit" };
        let ended = self.say(end)?;
        Ok(if ended.tags() == ["COMMIT"] { Outcome::Committed } else { Outcome::Aborted })
    }

    fn drop_and_create(&mut self, target: &Target) -> Result<Outcome, Lost> {
        self.say("begin")?;
        let locked = self.say("lock table dropped in access exclusive mode")?;
        if locked.error().is_some() {
            return self.failed(&locked);
        }
        let version = self.say("select v from dropped")?.rows()[0][0].parse::<i64>().unwrap() + 1;
        self.draft.push((target.family.cell(0), version));
        let sql = format!(
            "drop table dropped; create table dropped (k int primary key, v bigint not null, w bigint not null);
             insert into dropped values (0, {version}, {})",
            target.id
        );
        let replies = [self.say(&sql)?];
        let ended = self.say("commit")?;
        self.judge_block(target.family, &replies, &ended)
    }

    /// The view shows the other table from now on, where every row is one version ahead.
    fn swing(&mut self, target: &Target) -> Result<Outcome, Lost> {
        self.say("begin")?;
        let locked = self.say("lock table swung in access exclusive mode")?;
        if locked.error().is_some() {
            return self.failed(&locked);
        }
        let shows_first = self.say("select pg_get_viewdef('swung') like '%swing_0%'")?.rows()[0][0] == "t";
        let (from, to) = if shows_first { ("swing_0", "swing_1") } else { ("swing_1", "swing_0") };
        let replies = [
            self.say(&format!(
                "update {to} set v = {from}.v + 1, w = {} from {from} where {to}.k = {from}.k returning {to}.k, {to}.v",
                target.id
            ))?,
            self.say(&format!("create or replace view swung as select k, v, w from {to}"))?,
        ];
        let ended = self.say("commit")?;
        self.judge_block(target.family, &replies, &ended)
    }
}
