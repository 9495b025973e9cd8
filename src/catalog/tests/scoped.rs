//! Reads whose rows policies choose.

use super::*;

/// `current_setting(NAME)` as PostgreSQL stores it.
fn current_setting(name: &str) -> String {
    let length = name.len() + 4;
    let bytes: Vec<String> = name.bytes().map(|byte| byte.to_string()).collect();
    format!(
        "{{FUNCEXPR :funcid 2077 :funcresulttype 25 :args ({{CONST :consttype 25 :constlen -1 :constisnull false \
         :location 9 :constvalue {length} [ {} 0 0 0 {} ]}})}}",
        length * 4,
        bytes.join(" ")
    )
}

/// `doc` with that policy; `member` is guarded by `current_user`.
fn world(policy: impl FnOnce(&mut Builder) -> String) -> World {
    let mut rows = Builder::new();
    for (oid, arguments) in [(2077, 1), (3294, 2)] {
        let row = FunctionRow {
            oid,
            name: "current_setting".into(),
            schema: world::PG_CATALOG,
            volatility: 's',
            language: "internal".into(),
            kind: 'f',
            arguments,
            ..FunctionRow::default()
        };
        rows.rows.functions.retain(|known| known.name != row.name || known.oid == 2077);
        rows.rows.functions.push(row);
    }
    let mut guarded = |name: &str| {
        let row = rows.relation(name, 'r');
        row.row_security = true;
        row.oid
    };
    let (doc, member) = (guarded("doc"), guarded("member"));
    rows.table("plain");
    rows.view("seen", &format!("{{RTE :relid {doc}}}"));
    let tree = policy(&mut rows).replace("$member", &member.to_string());
    for (relation, tree) in [(doc, tree), (member, "{SQLVALUEFUNCTION :op 10 :type 19}".into())] {
        rows.rows.expressions.push(ExpressionRow { relation, used_for: ExpressionUse::Policy, tree });
    }
    rows.build()
}

/// What it reads and the settings that it hangs on, if it may be kept.
fn scoped(world: &World, sql: &str) -> String {
    let meaning = world.meaning(sql);
    let Some(scoped) = &meaning.scoped else {
        return format!("! {}", meaning.cacheable.as_ref().err().map_or("kept by everybody", |reason| reason.label()));
    };
    assert_eq!(meaning.cacheable, Err(Bypass::RowSecurity), "{sql}");
    let kept =
        Meaning { cacheable: Err(Bypass::RowSecurity), scoped: meaning.scoped.clone(), ..(*scoped.meaning).clone() };
    assert_eq!(*meaning, kept, "{sql}");
    format!("{} by {}", world.names(scoped.meaning.cacheable.as_ref().unwrap()), scoped.settings.join(" "))
}

#[test]
fn rows_may_be_chosen_by_who_asks_by_settings_and_by_other_tables() {
    let policy = format!("{} {{RTE :relid $member}}", current_setting("app.Tenant"));
    let world = world(|_| policy);
    check(
        &[
            ("select * from doc", "doc member by app.tenant"),
            ("select id from seen", "doc member seen by app.tenant"),
            ("select * from member", "member by "),
            ("select * from doc join plain using (id)", "doc member plain by app.tenant"),
            ("select * from plain", "! kept by everybody"),
            ("select *, now() from doc", "! row_security"),
            ("select now(), id from (values (1)) as doc(id)", "! clock"),
            ("select current_user from doc", "! session_state"),
            ("select current_setting('app.tenant') from doc", "! row_security"),
            ("select * from doc for update", "! row_lock"),
            ("explain select * from doc", "! not_a_read"),
            ("insert into plain select * from doc", "! not_a_read"),
            ("select * from doc; select * from doc", "! multi_statement"),
        ],
        |sql| scoped(&world, sql),
    );
    assert_eq!(world.snapshot.custom_settings(), ["app.tenant"]);
    assert_eq!(world.access("select * from doc"), "server_state");
    assert_eq!(world.access("select * from member"), "read");
}

#[test]
fn what_else_a_policy_may_ask_is_refused() {
    let refuse = |policy: String| {
        let world = world(|_| policy.clone());
        assert_eq!(scoped(&world, "select * from doc"), "! row_security", "{policy}");
    };
    refuse(current_setting("timezone"));
    refuse(format!("{} {{FUNCEXPR :funcid 2077 :args ({{VAR :varno 1}})}}", current_setting("a.b")));
    refuse("{SQLVALUEFUNCTION :op 0 :type 1082}".into());
    refuse("{SQLVALUEFUNCTION :op 14 :type 19}".into());
    for (volatility, language) in [('i', "sql"), ('s', "sql"), ('i', "plpgsql"), ('v', "plpgsql"), ('s', "c")] {
        let world = world(|rows| format!("{{FUNCEXPR :funcid {}}}", rows.function("f", volatility, language, 0).oid));
        assert_eq!(scoped(&world, "select * from doc"), "! row_security", "{volatility} {language}");
    }
}
