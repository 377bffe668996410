//! Which rules are read at all: the parser of CEL is not made for those who mean it ill.

use crate::kubeapi::tree::Tree;
use kube::core::cel::{
    CompiledSchema,
    cel::{
        Program,
        common::ast::{EntryExpr, Expr, IdedExpr},
    },
    compile_schema,
};
use regex::{Captures, Regex};
use serde_json::Value;
use std::{sync::LazyLock, thread};

/// How many operators a rule may have outside of its texts: the parser goes a level deeper for each. Rules
/// in use have a tenth of these.
const OPERATORS: usize = 1_000;

/// How much room the parser has. A program that is not optimised takes 40 KiB for a level, and 350 for
/// one in brackets, of which the parser takes 96.
const STACK: usize = 128 * 1024 * 1024;

/// How many levels a rule may have when it is read: it is carried out on the thread of the request.
const LEVELS: usize = 40;

/// How many values the rules of one part of an object may go through: an unoptimised program takes seconds for
/// these. A real server has a budget for each rule and estimates at the definition; here it is estimated at
/// the write, from what is there.
const STEPS: usize = 100_000_000;

/// A text, a name in backquotes, a comment, or what else could be taken for the beginning of one.
const TOKEN: &str = r#"(?x)
    [bB]?[rR]
    (?: """(?s:.*?)""" | '''(?s:.*?)''' | "[^"\n\r]*" | '[^'\n\r]*' )
  | [bB]?
    (?: """(?:[^\\]|\\.)*?""" | '''(?:[^\\]|\\.)*?'''
      | "(?:[^\\"\n\r]|\\.)*" | '(?:[^\\'\n\r]|\\.)*' )
  | `[^`\n]*`
  | //[^\n]*
  | 0x[0-9a-fA-F]+ | [0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?
  | [A-Za-z_][A-Za-z0-9_]*
"#;

static TOKENS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(TOKEN).expect("it is a regular expression"));

static DOUBLED: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"!\s*!|-\s*-").expect("it is a regular expression"));

/// The rules of a schema as they are carried out, or why they cannot be read.
pub(super) fn read(schema: &Value) -> Result<CompiledSchema, String> {
    let rules = schema.field(super::KEYWORD).as_array();
    let texts = rules.into_iter().flatten();
    let mut texts = texts.flat_map(|rule| [rule.text("rule"), rule.text("messageExpression")]);
    if let Some(mistake) = texts.find_map(mistake) {
        return Err(mistake);
    }
    let read = || {
        let own = compile_schema(schema);
        let why = expressions(&own).find_map(unfit);
        why.map_or(Ok(own), Err)
    };
    thread::scope(|scope| {
        let reader = thread::Builder::new().stack_size(STACK);
        let reader = reader.spawn_scoped(scope, read);
        let reader = reader.map_err(|error| error.to_string())?;
        let failed = |_| Err("it cannot be read".to_owned());
        reader.join().unwrap_or_else(failed)
    })
}

/// What keeps an expression from being read.
fn mistake(expression: &str) -> Option<String> {
    let bare = bare(expression);
    // The parser goes on behind what it does not understand, and sees what stands there in another way.
    if bare.contains(['"', '\'', '`']) {
        return Some("a text in it has no end".to_owned());
    }
    let operators = bare.matches(|sign| "+-*/%.[({<>=&|?!".contains(sign));
    if operators.count() > OPERATORS {
        return Some(format!("it has more than {OPERATORS} operators"));
    }
    // The parser takes an even number for an odd one, and twice the time for what follows.
    let doubled = DOUBLED.is_match(&bare);
    doubled.then(|| "it has a doubled sign (!! or --)".to_owned())
}

/// An expression without its texts and comments.
fn bare(expression: &str) -> String {
    let replace = |token: &Captures<'_>| {
        let token = token.get(0).map_or("", |token| token.as_str());
        if token.starts_with("//") {
            return " ".to_owned();
        }
        let is_text = token.ends_with(['"', '\'', '`']);
        if is_text { "0" } else { token }.to_owned()
    };
    TOKENS.replace_all(expression, replace).into_owned()
}

/// The rules of a schema, and what makes the messages for them.
fn expressions(own: &CompiledSchema) -> impl Iterator<Item = &IdedExpr> {
    let rules = own.validations.iter().flatten();
    let programs = rules.flat_map(|rule| rule.message_program.iter().chain([&rule.program]));
    programs.map(Program::expression)
}

/// What keeps an expression that was read from being carried out.
fn unfit(expression: &IdedExpr) -> Option<String> {
    if levels(expression) > LEVELS {
        return Some(format!("it has more than {LEVELS} levels"));
    }
    makes_message(expression).then(|| "it makes a message, of which there are none".to_owned())
}

/// Whether a message (`Name{field: value}`) is in it, at which the program gives up.
fn makes_message(expression: &IdedExpr) -> bool {
    let is_one = matches!(expression.expr, Expr::Struct(_));
    is_one || below(&expression.expr).into_iter().any(makes_message)
}

/// How many levels an expression has.
fn levels(expression: &IdedExpr) -> usize {
    1 + below(&expression.expr)
        .into_iter()
        .map(levels)
        .max()
        .unwrap_or(0)
}

/// How deep the loops of these rules are in each other.
pub(super) fn loops(own: &CompiledSchema) -> u32 {
    expressions(own).map(loops_in).max().unwrap_or(0)
}

fn loops_in(expression: &IdedExpr) -> u32 {
    let below = below(&expression.expr).into_iter().map(loops_in).max();
    u32::from(is_loop(&expression.expr)) + below.unwrap_or(0)
}

/// Whether an expression goes through a list for each of its items, or has a function do so.
fn is_loop(expression: &Expr) -> bool {
    match expression {
        Expr::Comprehension(_) => true,
        Expr::Call(call) => {
            let on = call.target.as_ref().map(|target| &target.expr);
            let on_sets = on.is_some_and(|on| matches!(on, Expr::Ident(name) if name == "sets"));
            on_sets || call.func_name == "distinct"
        }
        Expr::Unspecified
        | Expr::Ident(_)
        | Expr::Literal(_)
        | Expr::List(_)
        | Expr::Select(_)
        | Expr::Map(_)
        | Expr::Struct(_) => false,
    }
}

/// Whether loops so deep would take too long: each goes through a list, and what it makes is copied for each
/// item.
pub(super) fn are_too_many(loops: u32, now: &Value, old: Option<&Value>) -> bool {
    if loops == 0 {
        return false;
    }
    let mut size = Size::default();
    size.add(now);
    if let Some(old) = old {
        size.add(old);
    }
    let rounds = size.longest.saturating_pow(loops);
    rounds.saturating_mul(size.values) > STEPS
}

/// How much there is in a value.
#[derive(Default)]
struct Size {
    values: usize,
    /// The length of the longest list or map.
    longest: usize,
}

impl Size {
    fn add(&mut self, value: &Value) {
        self.values += 1;
        match value {
            Value::Array(items) => {
                self.longest = self.longest.max(items.len());
                for item in items {
                    self.add(item);
                }
            }
            Value::Object(fields) => {
                self.longest = self.longest.max(fields.len());
                for field in fields.values() {
                    self.add(field);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// The parts of an expression.
fn below(expression: &Expr) -> Vec<&IdedExpr> {
    match expression {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
        Expr::Call(call) => call
            .target
            .as_deref()
            .into_iter()
            .chain(&call.args)
            .collect(),
        Expr::Comprehension(all) => vec![
            &all.iter_range,
            &all.accu_init,
            &all.loop_cond,
            &all.loop_step,
            &all.result,
        ],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Map(map) => map
            .entries
            .iter()
            .flat_map(|entry| parts(&entry.expr))
            .collect(),
        Expr::Struct(made) => made
            .entries
            .iter()
            .flat_map(|entry| parts(&entry.expr))
            .collect(),
    }
}

fn parts(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubeapi::cel::CelRules;
    use serde_json::json;

    fn schema(rule: &str) -> Value {
        json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}]})
    }

    #[test]
    fn the_deepest_rules_that_are_read_have_room_on_a_small_thread() {
        let shapes = [
            ("1+", "1", ""),
            ("-1*", "1", ""),
            ("(", "1", ")"),
            ("[", "1", "]"),
            ("{1:", "1", "}"),
            ("true?true:", "true", ""),
            ("true?", "true", ":true"),
            ("!(", "true", ")"),
            ("-(", "1", ")"),
            ("1<", "1", ""),
            ("true&&", "true", ""),
            ("true||(", "true", ")"),
            ("[1].all(x,", "true", ")"),
            ("", "self", ".a"),
            ("", "self", "[0]"),
            ("", "self", ".a()"),
            ("", "[1]", ".map(x,x)"),
            ("size(", "1", ")"),
        ];
        for (before, core, after) in shapes {
            for count in [LEVELS / 3, LEVELS - 1, OPERATORS / 8, 100_000] {
                let rule = format!("{}{core}{}", before.repeat(count), after.repeat(count));
                let thread = thread::Builder::new().stack_size(2 * 1024 * 1024);
                let checked = thread.spawn(move || {
                    let rules = CelRules::of(&schema(&rule)).unwrap();
                    rules.check(&json!({}), None).len()
                });
                checked.unwrap().join().unwrap();
            }
        }
    }

    #[test]
    fn a_rule_of_very_many_operators_is_not_read() {
        let mistake = |count| {
            let rule = format!("{}1 == 1", "1+".repeat(count));
            CelRules::of(&schema(&rule))
                .unwrap()
                .mistake()
                .unwrap_or_default()
        };
        assert_eq!(mistake(10), "");
        assert!(mistake(OPERATORS / 2).contains("levels"));
        assert!(mistake(100_000).contains("operators"));
    }

    #[test]
    fn a_long_rule_is_read() {
        let one = "(!has(self.spec.mode) || self.spec.mode in ['a', 'b'] && self.spec.list.all(x, x.size() < 10))";
        let rule = vec![one; 40].join(" && ");
        assert!(rule.len() > 3_500);
        assert_eq!(CelRules::of(&schema(&rule)).unwrap().mistake(), None);
    }

    #[test]
    fn the_deeper_its_loops_the_shorter_lists_a_rule_goes_through() {
        let check = |rule: &str, length: usize| {
            let schema = schema(rule);
            let list: Vec<usize> = (0..length).collect();
            let rules = CelRules::of(&schema).unwrap();
            rules.check(&json!({"l": list}), None).len()
        };
        for (rule, short, long) in [
            ("self.l.all(x, x >= 0)", 2_000, 10_001),
            ("self.l.all(x, self.l.exists(y, x == y))", 50, 500),
            ("sets.contains(self.l, self.l)", 100, 10_001),
            ("self.l.map(x, x).all(x, x >= 0)", 100, 10_001),
        ] {
            assert_eq!(check(rule, short), 0, "{rule}");
            assert_eq!(check(rule, long), 1, "{rule}");
        }
        assert_eq!(check("self.l.size() < 20000", 10_001), 0);
    }

    #[test]
    fn a_rule_that_makes_a_message_is_a_mistake() {
        let mistake = |rule: &str| CelRules::of(&schema(rule)).unwrap().mistake();
        for rule in ["Foo{} == self", "[1].all(x, Foo{a: x} == self)"] {
            assert!(mistake(rule).is_some(), "{rule}");
        }
        assert_eq!(mistake("{'a': 1} != self"), None);
    }

    #[test]
    fn a_doubled_sign_is_noticed_outside_of_texts_alone() {
        for rule in [
            "!!true",
            "! !true",
            "!//!'\n!true",
            "--1 == 1",
            "'a' == r'\\' || !!self.a('')",
            "'\"\"\"\n!!true\"\"\"'",
            "0x1r'\\' + !!true + ''",
        ] {
            assert!(mistake(rule).is_some(), "{rule}");
        }
        for rule in [
            "self.matches('^--!!$')",
            r"!self.contains('\'--') && self != '''
                --'''",
            "self.`a--b` != 1 // --",
            "a != !b",
            r#"self.find(r"\") == b"--" "#,
        ] {
            assert_eq!(mistake(rule), None, "{rule}");
        }
    }
}
