//! Expressions: functions, operators, casts, and the nodes that are none of these but mean the same.

use pg_query::{NodeEnum as N, protobuf as pg};

use super::{Walker, name_of};
use crate::sql::statement::{CallUse, Flags, Name};

/// Columns that change without the row changing.
const SYSTEM_COLUMNS: &[&str] = &["cmax", "cmin", "ctid", "xmax", "xmin"];

const DATE_TYPES: &[&str] = &["date", "time", "timestamp", "timestamptz", "timetz"];
const TEXT_TYPES: &[&str] = &["bpchar", "char", "cstring", "name", "text", "unknown", "varchar"];

/// Functions that return a date or time, never a text that is then read as one.
const DATE_FUNCTIONS: &[&str] = &[
    "age",
    "date",
    "date_bin",
    "date_trunc",
    "generate_series",
    "lag",
    "last_value",
    "lead",
    "first_value",
    "lower",
    "make_date",
    "make_timestamp",
    "make_timestamptz",
    "max",
    "min",
    "now",
    "timezone",
    "to_date",
    "to_timestamp",
    "upper",
];

impl<'t> Walker<'t> {
    /// An expression: false if it is no node that the grammar puts into one.
    pub(super) fn expression(&mut self, node: &'t N) -> bool {
        self.leaf(node) || self.named(node) || self.compound(node) || self.clause(node) || self.json(node)
    }

    fn leaf(&mut self, node: &N) -> bool {
        matches!(
            node,
            N::AConst(_)
                | N::ParamRef(_)
                | N::AStar(_)
                | N::SetToDefault(_)
                | N::CurrentOfExpr(_)
                | N::Integer(_)
                | N::Float(_)
                | N::Boolean(_)
                | N::String(_)
                | N::BitString(_)
                | N::MergeSupportFunc(_)
        )
    }

    /// Nodes that name something to look up.
    fn named(&mut self, node: &'t N) -> bool {
        match node {
            N::ColumnRef(column) => self.column(&column.fields),
            N::AIndirection(indirection) => {
                self.boxed(&indirection.arg);
                for step in &indirection.indirection {
                    match &step.node {
                        Some(N::String(field)) => self.fields.push(field.sval.as_str().into()),
                        _ => self.node(step),
                    }
                }
            }
            N::FuncCall(call) => self.call(call),
            N::AExpr(expression) => self.operator_expression(expression),
            N::TypeCast(cast) => self.cast(cast),
            N::SqlvalueFunction(function) => self.sql_value(function.op),
            N::SubLink(link) => {
                self.boxed(&link.testexpr);
                if !link.oper_name.is_empty() {
                    self.operator(&link.oper_name);
                }
                self.boxed(&link.subselect);
            }
            N::SortBy(sort) => {
                self.boxed(&sort.node);
                if !sort.use_op.is_empty() {
                    self.operator(&sort.use_op);
                }
            }
            N::TypeName(name) => self.type_use(name),
            _ => return false,
        }
        true
    }

    /// Nodes that only hold others.
    fn compound(&mut self, node: &'t N) -> bool {
        match node {
            N::List(list) => self.list(&list.items),
            N::BoolExpr(expression) => self.list(&expression.args),
            N::AArrayExpr(array) => self.list(&array.elements),
            N::AIndices(indices) => {
                self.boxed(&indices.lidx);
                self.boxed(&indices.uidx);
            }
            N::CaseExpr(case) => {
                self.boxed(&case.arg);
                self.list(&case.args);
                self.boxed(&case.defresult);
            }
            N::CaseWhen(when) => {
                self.boxed(&when.expr);
                self.boxed(&when.result);
            }
            N::CoalesceExpr(coalesce) => self.list(&coalesce.args),
            N::MinMaxExpr(expression) => self.list(&expression.args),
            N::RowExpr(row) => self.list(&row.args),
            N::NullTest(test) => self.boxed(&test.arg),
            N::BooleanTest(test) => self.boxed(&test.arg),
            N::CollateClause(clause) => self.boxed(&clause.arg),
            N::NamedArgExpr(argument) => self.boxed(&argument.arg),
            N::GroupingFunc(function) => self.list(&function.args),
            N::XmlExpr(xml) => {
                self.list(&xml.named_args);
                self.list(&xml.args);
            }
            N::XmlSerialize(xml) => {
                self.boxed(&xml.expr);
                self.type_name(&xml.type_name);
            }
            _ => return false,
        }
        true
    }

    /// Parts of statements that hold expressions.
    fn clause(&mut self, node: &'t N) -> bool {
        match node {
            N::ResTarget(target) => {
                self.list(&target.indirection);
                self.boxed(&target.val);
            }
            N::MultiAssignRef(assign) => self.boxed(&assign.source),
            N::WindowDef(window) => self.window(window),
            N::GroupingSet(set) => self.list(&set.content),
            N::IndexElem(element) => self.boxed(&element.expr),
            N::DefElem(element) => self.boxed(&element.arg),
            _ => return false,
        }
        true
    }

    fn window(&mut self, window: &'t pg::WindowDef) {
        self.list(&window.partition_clause);
        self.list(&window.order_clause);
        self.boxed(&window.start_offset);
        self.boxed(&window.end_offset);
    }

    fn column(&mut self, fields: &[pg::Node]) {
        let Some(N::String(last)) = fields.last().and_then(|field| field.node.as_ref()) else {
            return;
        };
        if SYSTEM_COLUMNS.contains(&last.sval.as_str()) {
            self.flags.insert(Flags::SYSTEM_COLUMN);
        }
        if fields.len() > 1 {
            self.fields.push(last.sval.as_str().into());
        }
    }

    pub(in crate::sql) fn call(&mut self, call: &'t pg::FuncCall) {
        match name_of(&call.funcname) {
            Some(name) => {
                let is_set_config = &*name.name == "set_config";
                let local = is_set_config && call.args.get(2).is_some_and(is_true);
                let setting = call.args.first().filter(|_| is_set_config).and_then(literal);
                let arguments = u16::try_from(call.args.len()).unwrap_or(u16::MAX);
                let setting = setting.map(|text| text.to_ascii_lowercase().into());
                self.calls.push(CallUse { name, arguments, local, setting });
            }
            None => self.unknown(),
        }
        self.list(&call.args);
        self.list(&call.agg_order);
        self.boxed(&call.agg_filter);
        if let Some(window) = &call.over {
            self.window(window);
        }
    }

    fn operator_expression(&mut self, expression: &'t pg::AExpr) {
        use pg::AExprKind as K;
        match K::try_from(expression.kind) {
            Ok(K::AexprBetween | K::AexprNotBetween | K::AexprBetweenSym | K::AexprNotBetweenSym) => {
                self.operators.extend(["<", "<=", ">", ">="].map(Name::bare));
            }
            Ok(K::Undefined) | Err(_) => self.unknown(),
            Ok(_) => self.operator(&expression.name),
        }
        self.boxed(&expression.lexpr);
        self.boxed(&expression.rexpr);
    }

    fn operator(&mut self, name: &[pg::Node]) {
        match name_of(name) {
            Some(name) => self.operators.push(name),
            None => self.unknown(),
        }
    }

    fn cast(&mut self, cast: &'t pg::TypeCast) {
        let target = cast.type_name.as_ref().and_then(|name| name_of(&name.names));
        if let (Some(target), Some(arg)) = (&target, &cast.arg)
            && DATE_TYPES.contains(&&*target.name)
            && !is_never_computed_text(arg)
        {
            self.flags.insert(Flags::COMPUTED_DATE);
        }
        self.boxed(&cast.arg);
        self.type_name(&cast.type_name);
    }

    pub(in crate::sql) fn type_name(&mut self, name: &Option<pg::TypeName>) {
        if let Some(name) = name {
            self.type_use(name);
        }
    }

    fn type_use(&mut self, name: &pg::TypeName) {
        match name_of(&name.names) {
            Some(found) if !name.pct_type => self.types.push(found),
            _ => self.unknown(),
        }
    }

    fn sql_value(&mut self, op: i32) {
        use pg::SqlValueFunctionOp as Op;
        let identity = matches!(
            Op::try_from(op),
            Ok(Op::SvfopCurrentRole
                | Op::SvfopCurrentUser
                | Op::SvfopUser
                | Op::SvfopSessionUser
                | Op::SvfopCurrentCatalog
                | Op::SvfopCurrentSchema)
        );
        self.flags.insert(if identity { Flags::IDENTITY } else { Flags::CLOCK });
    }

    fn json(&mut self, node: &'t N) -> bool {
        match node {
            N::JsonFuncExpr(function) => {
                self.json_value(&function.context_item);
                self.boxed(&function.pathspec);
                self.list(&function.passing);
                self.json_output(&function.output);
                self.json_behavior(&function.on_empty);
                self.json_behavior(&function.on_error);
            }
            N::JsonValueExpr(value) => self.boxed(&value.raw_expr),
            N::JsonArgument(argument) => self.json_value(&argument.val),
            N::JsonKeyValue(pair) => self.json_pair(pair),
            N::JsonIsPredicate(test) => self.boxed(&test.expr),
            N::JsonParseExpr(parse) => {
                self.json_value(&parse.expr);
                self.json_output(&parse.output);
            }
            N::JsonScalarExpr(scalar) => {
                self.boxed(&scalar.expr);
                self.json_output(&scalar.output);
            }
            N::JsonSerializeExpr(serialize) => {
                self.json_value(&serialize.expr);
                self.json_output(&serialize.output);
            }
            N::JsonObjectConstructor(object) => {
                self.list(&object.exprs);
                self.json_output(&object.output);
            }
            N::JsonArrayConstructor(array) => {
                self.list(&array.exprs);
                self.json_output(&array.output);
            }
            N::JsonArrayQueryConstructor(array) => {
                self.boxed(&array.query);
                self.json_output(&array.output);
            }
            N::JsonObjectAgg(aggregate) => {
                if let Some(pair) = &aggregate.arg {
                    self.json_pair(pair);
                }
                self.json_aggregate(&aggregate.constructor);
            }
            N::JsonArrayAgg(aggregate) => {
                self.json_value(&aggregate.arg);
                self.json_aggregate(&aggregate.constructor);
            }
            _ => return false,
        }
        true
    }

    fn json_pair(&mut self, pair: &'t pg::JsonKeyValue) {
        self.boxed(&pair.key);
        self.json_value(&pair.value);
    }

    pub(super) fn json_value(&mut self, value: &'t Option<Box<pg::JsonValueExpr>>) {
        if let Some(value) = value {
            self.boxed(&value.raw_expr);
        }
    }

    pub(super) fn json_behavior(&mut self, behavior: &'t Option<Box<pg::JsonBehavior>>) {
        if let Some(behavior) = behavior {
            self.boxed(&behavior.expr);
        }
    }

    fn json_output(&mut self, output: &Option<pg::JsonOutput>) {
        if let Some(output) = output {
            self.type_name(&output.type_name);
        }
    }

    fn json_aggregate(&mut self, constructor: &'t Option<Box<pg::JsonAggConstructor>>) {
        if let Some(constructor) = constructor {
            self.json_output(&constructor.output);
            self.boxed(&constructor.agg_filter);
            self.list(&constructor.agg_order);
            if let Some(window) = &constructor.over {
                self.window(window);
            }
        }
    }
}

/// False for a text put together by the statement itself, which might come out as `now`.
fn is_never_computed_text(node: &pg::Node) -> bool {
    match &node.node {
        Some(N::FuncCall(call)) => name_of(&call.funcname).is_some_and(|name| DATE_FUNCTIONS.contains(&&*name.name)),
        Some(N::AExpr(expression)) => name_of(&expression.name).is_some_and(|name| &*name.name != "||"),
        Some(N::TypeCast(cast)) => {
            let target = cast.type_name.as_ref().and_then(|name| name_of(&name.names));
            target.is_some_and(|target| !TEXT_TYPES.contains(&&*target.name))
        }
        Some(N::CoalesceExpr(coalesce)) => coalesce.args.iter().all(is_never_computed_text),
        Some(N::MinMaxExpr(expression)) => expression.args.iter().all(is_never_computed_text),
        Some(N::AConst(_) | N::ParamRef(_) | N::ColumnRef(_) | N::SqlvalueFunction(_) | N::AIndirection(_)) => true,
        _ => false,
    }
}

fn is_true(node: &pg::Node) -> bool {
    let Some(N::AConst(constant)) = &node.node else {
        return false;
    };
    matches!(&constant.val, Some(pg::a_const::Val::Boolval(value)) if value.boolval)
}

fn literal(node: &pg::Node) -> Option<&str> {
    match &node.node {
        Some(N::AConst(constant)) => match &constant.val {
            Some(pg::a_const::Val::Sval(text)) => Some(&text.sval),
            _ => None,
        },
        _ => None,
    }
}
