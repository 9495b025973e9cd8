//! References in a `pg_node_tree`, by a scan over its text.
//!
//! A stored expression names relations, functions and operators by oid; `pg_depend` would be
//! easier to read but leaves out everything built in. The text form is `{NODE :field value ..}`.

/// What a stored expression or view refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TreeUses {
    pub(super) relations: Vec<u32>,
    pub(super) functions: Vec<u32>,
    /// Types that values are turned into.
    pub(super) types: Vec<u32>,
    pub(super) clock: bool,
    pub(super) identity: bool,
    /// Of the session, it asks for more than who it is: for its schema, its database.
    pub(super) place: bool,
    /// Settings with a dot in their names that it asks for, in lower case.
    pub(super) settings: Vec<Box<str>>,
    /// It may ask for others.
    pub(super) other_settings: bool,
    pub(super) nextval: bool,
    pub(super) sample: bool,
    pub(super) row_lock: bool,
    pub(super) system_column: bool,
}

/// `SVFOP_CURRENT_ROLE` of `nodes/primnodes.h`: the clock before it, identity from it on.
const FIRST_IDENTITY_OP: u32 = 9;
/// `SVFOP_CURRENT_CATALOG`: the current role, current user, user and session user stand before it.
const FIRST_PLACE_OP: u32 = 13;
/// `current_setting(text)` and `current_setting(text, bool)`
const CURRENT_SETTING: [u32; 2] = [2077, 3294];
/// `set_config(text, text, bool)`
const SET_CONFIG: [u32; 1] = [2078];
/// What a text constant that is an argument looks like, up to its bytes.
const TEXT_ARGUMENT: &str = ":args ({CONST :consttype 25 ";
/// Bytes of a setting's name.
const LONGEST_SETTING: usize = 127;

impl TreeUses {
    pub(super) fn scan(tree: &str) -> Self {
        let mut uses = Self::default();
        let mut tokens = tree.split([' ', '\n', '(', ')']).filter(|token| !token.is_empty()).peekable();
        let mut node = "";
        while let Some(token) = tokens.next() {
            if let Some(name) = token.strip_prefix('{') {
                node = name;
                uses.node(name);
            } else if let Some(field) = token.strip_prefix(':')
                && let Some(value) = tokens.peek()
            {
                uses.field(node, field, value.trim_end_matches('}'));
            }
        }
        uses.find_settings(tree);
        for list in [&mut uses.relations, &mut uses.functions, &mut uses.types] {
            list.sort_unstable();
            list.dedup();
        }
        uses
    }

    fn node(&mut self, name: &str) {
        match name {
            "NEXTVALUEEXPR" => self.nextval = true,
            "TABLESAMPLECLAUSE" => self.sample = true,
            "ROWMARKCLAUSE" => self.row_lock = true,
            _ => {}
        }
    }

    fn field(&mut self, node: &str, field: &str, value: &str) {
        let number = value.parse::<u32>();
        match (field, number) {
            ("relid", Ok(oid)) if oid != 0 => self.relations.push(oid),
            ("funcid" | "opfuncid" | "aggfnoid" | "winfnoid" | "hashfuncid" | "negfuncid", Ok(oid)) if oid != 0 => {
                self.functions.push(oid);
            }
            ("resulttype" | "funcresulttype" | "opresulttype" | "consttype" | "row_typeid", Ok(oid)) => {
                self.types.push(oid)
            }
            ("op", Ok(op)) if node == "SQLVALUEFUNCTION" => match op >= FIRST_IDENTITY_OP {
                true => {
                    self.identity = true;
                    self.place |= op >= FIRST_PLACE_OP;
                }
                false => self.clock = true,
            },
            ("varattno", Err(_)) => {
                // tableoid is -6; the others change without the row changing.
                self.system_column |= value.parse::<i32>().is_ok_and(|column| (-5..=-1).contains(&column));
            }
            _ => {}
        }
    }

    fn find_settings(&mut self, tree: &str) {
        if !self.functions.iter().any(|oid| asks_setting(*oid)) {
            return;
        }
        for call in calls(tree, &CURRENT_SETTING) {
            match setting_of(call) {
                Some(name) => self.settings.push(name),
                None => self.other_settings = true,
            }
        }
        // A call that is written in another way than it is looked for here.
        let named = self.functions.iter().filter(|oid| asks_setting(**oid)).count();
        self.other_settings |= self.settings.len() < named;
        self.settings.sort_unstable();
        self.settings.dedup();
    }
}

/// Names with a dot in them that calls of `set_config` in a tree set.
pub(super) fn settings_set_in(tree: &str) -> Vec<Box<str>> {
    calls(tree, &SET_CONFIG).into_iter().filter_map(setting_of).collect()
}

/// The tree from each call of these functions on.
fn calls<'t>(tree: &'t str, functions: &[u32]) -> Vec<&'t str> {
    let of = |oid: &u32| {
        let call = format!(":funcid {oid} ");
        tree.match_indices(&call).filter_map(|(at, _)| tree.get(at..)).collect::<Vec<_>>()
    };
    functions.iter().flat_map(of).collect()
}

/// Is it `current_setting`?
pub(super) fn asks_setting(function: u32) -> bool {
    CURRENT_SETTING.contains(&function)
}

/// The name that a call of `current_setting` asks for, if that is a constant with a dot in it.
fn setting_of(call: &str) -> Option<Box<str>> {
    // Up to its own arguments there is nothing but its own fields.
    let (fields, argument) = call.split_once(TEXT_ARGUMENT)?;
    if fields.contains(['{', '(']) {
        return None;
    }
    let (fields, value) = argument.split_once(":constvalue ")?;
    if fields.contains('{') || !fields.contains(":constisnull false ") {
        return None;
    }
    let (count, rest) = value.split_once(" [ ")?;
    let (bytes, _) = rest.split_once(" ]")?;
    let bytes: Vec<u8> =
        bytes.split(' ').map(|byte| Some(byte.parse::<i16>().ok()?.to_le_bytes()[0])).collect::<Option<_>>()?;
    // Its length stands before the text: the lower two bits of four bytes say which form that has.
    let (header, text) = bytes.split_first_chunk::<4>()?;
    let is_plain = u32::from_le_bytes(*header) as usize == bytes.len() * 4;
    let name = std::str::from_utf8(text).ok().filter(|_| is_plain && count.parse() == Ok(bytes.len()))?;
    is_custom(name).then(|| name.to_ascii_lowercase().into())
}

/// Parts of letters, digits, `_` and `$`, with dots between them.
fn is_custom(name: &str) -> bool {
    let is_part = |part: &str| {
        let mut bytes = part.bytes();
        bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && bytes.all(|other| other.is_ascii_alphanumeric() || matches!(other, b'_' | b'$'))
    };
    name.len() <= LONGEST_SETTING && name.contains('.') && name.split('.').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As PostgreSQL 15 stores `tenant = current_setting('App.t')::int`, shortened in front.
    fn call(function: u32, argument: &str) -> String {
        format!(
            "{{OPEXPR :opno 96 :opfuncid 65 :args ({{VAR :varno 1 :varattno 1}} {{COERCEVIAIO :arg {{FUNCEXPR :funcid {function} \
             :funcresulttype 25 :funcretset false :funcvariadic false :funcformat 0 :funccollid 100 :inputcollid 100 \
             :args ({argument}) :location 70}} :resulttype 23 :resultcollid 0}}) :location 60}}"
        )
    }

    fn text(value: &str) -> String {
        let length = value.len() + 4;
        let bytes: Vec<String> = value.bytes().map(|byte| (byte as i8).to_string()).collect();
        format!(
            "{{CONST :consttype 25 :consttypmod -1 :constcollid 100 :constlen -1 :constbyval false :constisnull false \
             :location 86 :constvalue {length} [ {} 0 0 0 {} ]}}",
            length * 4,
            bytes.join(" ")
        )
    }

    #[track_caller]
    fn check(tree: &str, settings: &[&str], others: bool) {
        let uses = TreeUses::scan(tree);
        let found: Vec<&str> = uses.settings.iter().map(|name| &**name).collect();
        assert_eq!((&*found, uses.other_settings), (settings, others), "{tree}");
    }

    #[test]
    fn settings_are_found_by_their_constant_names() {
        let missing = "{CONST :consttype 16 :constlen 1 :constisnull false :constvalue 1 [ 1 0 0 0 0 0 0 0 ]}";
        check(&call(2077, &text("App.t")), &["app.t"], false);
        check(&call(3294, &format!("{} {missing}", text("a.b"))), &["a.b"], false);
        check(&format!("{} {}", call(2077, &text("a.b")), call(3294, &text("c.d"))), &["a.b", "c.d"], false);
        check("{SQLVALUEFUNCTION :op 10 :type 19}", &[], false);
    }

    #[test]
    fn names_that_are_set_are_found_as_well() {
        let value = text("7");
        let tree = format!("{} {}", call(2078, &format!("{} {value}", text("App.t"))), call(2077, &text("a.b")));
        assert_eq!(settings_set_in(&tree), [Box::<str>::from("app.t")]);
        assert!(settings_set_in(&call(2078, &format!("{{PARAM :paramid 1}} {value}"))).is_empty());
    }

    #[test]
    fn any_other_name_is_not_known() {
        let null = text("a.b").replace(":constisnull false", ":constisnull true");
        for argument in [
            &text("timezone"),
            &text("a.b c"),
            &text("a."),
            &text("ä.b"),
            &null,
            "{VAR :varno 1 :varattno 2 :vartype 25}",
            &format!("{{RELABELTYPE :arg {} :resulttype 25}}", text("a.b")),
            &format!("{{FUNCEXPR :funcid 870 :args ({})}}", text("a.b")),
            &text("a.b").replace(":constvalue 7", ":constvalue 8"),
        ] {
            check(&call(2077, argument), &[], true);
        }
        check(&format!("{} {}", call(2077, &text("a.b")), call(2077, "{PARAM :paramid 1}")), &["a.b"], true);
    }
}
