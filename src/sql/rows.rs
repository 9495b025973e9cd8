//! Which rows of its one table a statement can be about, by what its text says of their columns.

use pg_query::{NodeEnum as N, protobuf as pg};

use super::{
    lexer::{Kind, Lexer},
    statement::{RowUse, Source, Value},
    walk::name_of,
};

/// A longer text is not looked through.
const LONGEST_TEXT_BYTES: usize = 64 * 1024;
/// Rows of an INSERT beyond which nobody looks.
const MOST_ROWS: usize = 32;
/// Values of an INSERT, or conditions, beyond which nobody looks.
const MOST_VALUES: usize = 128;

/// A literal that can be read as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Literal<'t> {
    /// Digits.
    Number(&'t [u8]),
    /// What stands between two quotes, none of them inside.
    Text(&'t [u8]),
}

/// The `number`th literal of a text, counted from 0: strings are read as the standard has them.
pub fn literal_at(text: &str, number: u16) -> Option<Literal<'_>> {
    let mut lexer = Lexer::new(text, true);
    let mut left = number;
    loop {
        lexer.skip_words();
        let token = lexer.next()?;
        if !is_literal(token.kind) {
            continue;
        }
        if let Some(less) = left.checked_sub(1) {
            left = less;
            continue;
        }
        let bytes = text.as_bytes().get(token.start..token.end)?;
        return match token.kind {
            Kind::Integer if !token.glued => Some(Literal::Number(bytes)),
            Kind::String if !token.continued => {
                let inside = bytes.strip_prefix(b"'")?.strip_suffix(b"'")?;
                (!inside.contains(&b'\'')).then_some(Literal::Text(inside))
            }
            _ => None,
        };
    }
}

/// What the shape of a text leaves out.
fn is_literal(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Word
            | Kind::Symbol
            | Kind::Operator
            | Kind::Param
            | Kind::Quoted
            | Kind::UnicodeQuoted
            | Kind::Unterminated
            | Kind::Comment
    )
}

/// Where the literals of a text stand, and its parameters, each as often as it is named.
struct Spelling {
    literals: Vec<usize>,
    parameters: Vec<u32>,
}

impl Spelling {
    fn of(text: &str) -> Self {
        let (mut literals, mut parameters) = (Vec::new(), Vec::new());
        for token in Lexer::new(text, true) {
            if is_literal(token.kind) {
                literals.push(token.start);
            } else if token.kind == Kind::Param {
                parameters.extend(text.get(token.start + 1..token.end).and_then(|number| number.parse::<u32>().ok()));
            }
        }
        parameters.sort_unstable();
        Self { literals, parameters }
    }

    /// The literal that begins there, counted from 0.
    fn literal(&self, at: usize) -> Option<u16> {
        u16::try_from(self.literals.binary_search(&at).ok()?).ok()
    }

    /// Is the parameter, counted from 1, named once?
    fn is_alone(&self, number: u32) -> bool {
        let first = self.parameters.partition_point(|other| *other < number);
        let named = self.parameters.get(first..).unwrap_or_default().iter().take_while(|other| **other == number);
        named.take(2).count() == 1
    }
}

/// What `node` says of the rows that it reads or writes, if it is about one table alone. `reads`: how often it names a relation
/// to be read, at any depth.
pub(super) fn rows(node: &N, text: &str, reads: usize) -> Option<RowUse> {
    if text.len() > LONGEST_TEXT_BYTES {
        return None;
    }
    let text = &Spelling::of(text);
    match node {
        N::SelectStmt(select) => of_select(select, text).filter(|_| reads == 1),
        N::UpdateStmt(update) if update.from_clause.is_empty() && update.with_clause.is_none() => {
            of_condition(update.relation.as_ref()?, &update.where_clause, text)
        }
        N::DeleteStmt(delete) if delete.using_clause.is_empty() && delete.with_clause.is_none() => {
            of_condition(delete.relation.as_ref()?, &delete.where_clause, text)
        }
        N::InsertStmt(insert) => of_insert(insert, text),
        _ => None,
    }
}

fn of_select(select: &pg::SelectStmt, text: &Spelling) -> Option<RowUse> {
    let is_plain = select.op == pg::SetOperation::SetopNone as i32 && select.with_clause.is_none();
    let [from] = select.from_clause.as_slice() else { return None };
    match &from.node {
        Some(N::RangeVar(relation)) if is_plain => of_condition(relation, &select.where_clause, text),
        _ => None,
    }
}

/// The conditions that all rows meet, and the table that their columns are of.
fn of_condition(relation: &pg::RangeVar, condition: &Option<Box<pg::Node>>, text: &Spelling) -> Option<RowUse> {
    let name = match &relation.alias {
        Some(alias) if alias.colnames.is_empty() => &alias.aliasname,
        Some(_) => return None,
        None => &relation.relname,
    };
    let mut equalities = Vec::new();
    conjuncts(condition.as_deref()?, &mut |node| {
        // One that is left out would only have said more.
        if equalities.len() < MOST_VALUES {
            equalities.extend(equality(node, name, text));
        }
    });
    (!equalities.is_empty()).then(|| RowUse::Where(equalities.into()))
}

fn conjuncts<'t>(node: &'t pg::Node, visit: &mut impl FnMut(&'t pg::AExpr)) {
    match &node.node {
        Some(N::BoolExpr(expression)) if expression.boolop == pg::BoolExprType::AndExpr as i32 => {
            expression.args.iter().for_each(|argument| conjuncts(argument, visit));
        }
        Some(N::AExpr(expression)) => visit(expression),
        _ => {}
    }
}

/// `column = value` or `value = column`.
fn equality(expression: &pg::AExpr, table: &str, text: &Spelling) -> Option<(Box<str>, Value)> {
    let is_equality = expression.kind == pg::AExprKind::AexprOp as i32
        && name_of(&expression.name).is_some_and(|name| name.schema.is_none() && &*name.name == "=");
    let (left, right) = (expression.lexpr.as_deref()?, expression.rexpr.as_deref()?);
    let of = |one, other| Some((column(one, table)?.into(), value(other, text)?));
    is_equality.then(|| of(left, right).or_else(|| of(right, left)))?
}

fn column<'t>(node: &'t pg::Node, table: &str) -> Option<&'t str> {
    let Some(N::ColumnRef(column)) = &node.node else { return None };
    let text = |field: &'t pg::Node| match &field.node {
        Some(N::String(string)) => Some(string.sval.as_str()),
        _ => None,
    };
    match column.fields.as_slice() {
        [name] => text(name),
        [of, name] => text(name).filter(|_| text(of) == Some(table)),
        _ => None,
    }
}

/// A literal or a parameter, perhaps with a cast.
fn value(node: &pg::Node, text: &Spelling) -> Option<Value> {
    match node.node.as_ref()? {
        N::TypeCast(cast) => {
            let target = cast.type_name.as_ref()?;
            let is_plain =
                target.typmods.is_empty() && target.array_bounds.is_empty() && !target.setof && !target.pct_type;
            let Value { source, cast: None } = value(cast.arg.as_deref()?, text)? else { return None };
            is_plain.then(|| Some(Value { source, cast: Some(name_of(&target.names)?) }))?
        }
        N::AConst(constant) => {
            use pg::a_const::Val;
            let is_readable = matches!(constant.val, Some(Val::Ival(_) | Val::Fval(_) | Val::Sval(_)));
            let at = usize::try_from(constant.location).ok().filter(|_| is_readable && !constant.isnull)?;
            Some(Value { source: Source::Literal(text.literal(at)?), cast: None })
        }
        N::ParamRef(parameter) => {
            let number = u16::try_from(parameter.number).ok()?.checked_sub(1)?;
            let is_alone = text.is_alone(u32::from(number) + 1);
            Some(Value { source: Source::Parameter { number, is_alone }, cast: None })
        }
        _ => None,
    }
}

/// `INSERT INTO table (columns) VALUES (…), (…)`
fn of_insert(insert: &pg::InsertStmt, text: &Spelling) -> Option<RowUse> {
    let is_plain = insert.with_clause.is_none() && insert.r#override == pg::OverridingKind::OverridingNotSet as i32;
    let may_update = insert
        .on_conflict_clause
        .as_ref()
        .is_some_and(|conflict| conflict.action != pg::OnConflictAction::OnconflictNothing as i32);
    let Some(N::SelectStmt(select)) = &insert.select_stmt.as_ref()?.node else { return None };
    if !is_plain || may_update || select.with_clause.is_some() || select.values_lists.len() > MOST_ROWS {
        return None;
    }
    if insert.cols.len() * select.values_lists.len() > MOST_VALUES {
        return None;
    }
    let column = |node: &pg::Node| match &node.node {
        Some(N::ResTarget(target)) if target.indirection.is_empty() => Some(target.name.as_str().into()),
        _ => None,
    };
    let columns = insert.cols.iter().map(column).collect::<Option<Box<[Box<str>]>>>()?;
    let row = |node: &pg::Node| match &node.node {
        Some(N::List(list)) if list.items.len() == columns.len() => {
            Some(list.items.iter().map(|item| value(item, text)).collect::<Box<[_]>>())
        }
        _ => None,
    };
    let rows = select.values_lists.iter().map(row).collect::<Option<Box<[_]>>>()?;
    (!columns.is_empty() && !rows.is_empty()).then_some(RowUse::Values { columns, rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(text: &str) -> Option<RowUse> {
        let parsed = super::super::parse::parse(text, false).unwrap();
        parsed.parts.iter().find_map(|part| part.facts.rows.clone())
    }

    #[test]
    fn nobody_looks_through_a_text_that_is_long_or_holds_several_statements() {
        let long = |bytes: usize| format!("select 1 from t where id = 5 and w = '{}'", "x".repeat(bytes));
        assert!(uses(&long(100)).is_some());
        assert_eq!(uses(&long(LONGEST_TEXT_BYTES)), None);
        assert_eq!(uses("select 1 from t where id = 5; select 1 from t where id = 6"), None);
    }

    #[test]
    fn so_many_conditions_and_values_are_looked_at_and_no_more() {
        let conditions = |count: usize| format!("select 1 from t where {}id = 5", "a = 1 and ".repeat(count));
        for (count, expected) in [(1, 2), (MOST_VALUES - 1, MOST_VALUES), (MOST_VALUES + 5, MOST_VALUES)] {
            let Some(RowUse::Where(equalities)) = uses(&conditions(count)) else { panic!("{count}") };
            assert_eq!(equalities.len(), expected);
        }
        let insert = |columns: usize| {
            let names: Vec<_> = (0..columns).map(|number| format!("c{number}")).collect();
            let values = vec!["1"; columns].join(", ");
            format!("insert into t ({}) values ({values}), ({values})", names.join(", "))
        };
        assert!(uses(&insert(MOST_VALUES / 2)).is_some());
        assert_eq!(uses(&insert(MOST_VALUES / 2 + 1)), None);
    }
}
