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
    pub(super) nextval: bool,
    pub(super) sample: bool,
    pub(super) row_lock: bool,
    pub(super) system_column: bool,
}

/// `SVFOP_CURRENT_ROLE` of `nodes/primnodes.h`: the clock before it, identity from it on.
const FIRST_IDENTITY_OP: u32 = 9;

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
                true => self.identity = true,
                false => self.clock = true,
            },
            ("varattno", Err(_)) => {
                // tableoid is -6; the others change without the row changing.
                self.system_column |= value.parse::<i32>().is_ok_and(|column| (-5..=-1).contains(&column));
            }
            _ => {}
        }
    }
}
