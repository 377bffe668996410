//! Sets of fields: who owns what, in the form of `metadata.managedFields` (FieldsV1).

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};
use std::borrow::Cow;

/// The mark of a field that is itself in the set while fields below it are too.
const ITSELF: &str = ".";

type Steps = Map<String, Value>;

/// A set of fields, kept as FieldsV1. A step is `f:NAME`, `k:{KEYS}` or `v:VALUE`, in one spelling each;
/// what a step leads to is an object: an empty one for a field without any below it, and one with
/// `ITSELF` only where that must be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FieldSet(Steps);

/// What one step leads to: a field, the fields below it, or both.
#[derive(Debug, Default)]
pub(super) struct Branch {
    pub(super) itself: bool,
    pub(super) below: FieldSet,
}

impl Branch {
    /// Whether it leads to nothing.
    pub(super) fn is_empty(&self) -> bool {
        !self.itself && self.below.is_empty()
    }
}

/// A look at the fields below some step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(&'a Steps);

impl Fields<'_> {
    /// Whether the field after this one step is in the set.
    pub(super) fn has(self, step: &str) -> bool {
        at(self.0, step).is_some_and(has_itself)
    }

    /// The fields below a step, if there are any.
    pub(super) fn below(self, step: &str) -> Option<Self> {
        let below = at(self.0, step).filter(|below| !below.is_empty());
        below.map(Self)
    }
}

/// The step to a named field.
pub(super) fn named(name: &str) -> String {
    ["f:", name].concat()
}

impl FieldSet {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields to look at.
    pub(super) fn fields(&self) -> Fields<'_> {
        Fields(&self.0)
    }

    /// Adds what a step leads to.
    pub(super) fn attach(&mut self, step: String, branch: Branch) {
        if branch.is_empty() {
            return;
        }
        let mut below = branch.below.0;
        mark(&mut below, branch.itself);
        match at_mut(&mut self.0, &step) {
            Some(known) => join(known, &below),
            None => drop(self.0.insert(step, Value::Object(below))),
        }
    }

    /// The same set, with only what is at and below some of the first steps.
    pub(super) fn filtered(mut self, keep: impl Fn(&str) -> bool) -> Self {
        self.0.retain(|step, _| keep(step));
        self
    }

    pub(super) fn union(mut self, other: &Self) -> Self {
        unite(&mut self.0, &other.0);
        self
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        Self(common(&self.0, &other.0))
    }

    /// Without the fields of the other set; what is below them stays.
    pub(super) fn difference(mut self, other: &Self) -> Self {
        subtract(&mut self.0, &other.0);
        self
    }

    /// Whether some field is in both sets.
    pub(super) fn meets(&self, other: &Self) -> bool {
        meet(&self.0, &other.0)
    }

    /// Whether every field is in the other set.
    pub(super) fn is_part_of(&self, other: &Self) -> bool {
        is_part(&self.0, &other.0)
    }

    /// The same set with every step that `is_part` accepts being itself in it, where fields below
    /// it are; `descend` gives what to ask below a step.
    pub(super) fn with_parents<C: Copy>(
        mut self,
        context: C,
        is_part: fn(C, &str) -> bool,
        descend: fn(C, &str) -> C,
    ) -> Self {
        add_parents(&mut self.0, context, is_part, descend);
        self
    }

    /// How many fields are in the set.
    pub(super) fn count(&self) -> usize {
        count(&self.0)
    }

    /// The fields as people read them, `.spec.join`, at most this many.
    pub(super) fn paths(&self, most: usize) -> Vec<String> {
        let mut paths = Vec::new();
        collect_paths(&self.0, "", most, &mut paths);
        paths
    }

    /// Reads FieldsV1; what is not one gives nothing.
    pub(super) fn decode(fields: Value) -> Option<Self> {
        let Value::Object(mut fields) = fields else {
            return None;
        };
        fields.remove(ITSELF);
        settle(&mut fields)?;
        Some(Self(fields))
    }

    /// Writes FieldsV1.
    pub(super) fn encode(self) -> Value {
        Value::Object(self.0)
    }
}

fn at<'a>(fields: &'a Steps, step: &str) -> Option<&'a Steps> {
    fields.get(step)?.as_object()
}

fn at_mut<'a>(fields: &'a mut Steps, step: &str) -> Option<&'a mut Steps> {
    fields.get_mut(step)?.as_object_mut()
}

fn steps(fields: &Steps) -> impl Iterator<Item = (&String, &Steps)> {
    let steps = fields.iter().filter(|(step, _)| *step != ITSELF);
    steps.filter_map(|(step, below)| Some((step, below.as_object()?)))
}

/// Whether the field that these are below is itself in the set.
fn has_itself(below: &Steps) -> bool {
    below.is_empty() || below.contains_key(ITSELF)
}

/// Says of the field that these are below whether it is itself in the set.
fn mark(below: &mut Steps, itself: bool) {
    below.remove(ITSELF);
    if itself && !below.is_empty() {
        below.insert(ITSELF.to_owned(), Value::Object(Map::new()));
    }
}

fn unite(mine: &mut Steps, theirs: &Steps) {
    for (step, theirs) in steps(theirs) {
        match at_mut(mine, step) {
            Some(mine) => join(mine, theirs),
            None => drop(mine.insert(step.clone(), Value::Object(theirs.clone()))),
        }
    }
}

/// Adds to what a step leads to what it leads to in another set.
fn join(mine: &mut Steps, theirs: &Steps) {
    let itself = has_itself(mine) || has_itself(theirs);
    unite(mine, theirs);
    mark(mine, itself);
}

fn common(mine: &Steps, theirs: &Steps) -> Steps {
    let mut shared = FieldSet::default();
    for (step, mine) in steps(mine) {
        if let Some(theirs) = at(theirs, step) {
            let branch = Branch {
                itself: has_itself(mine) && has_itself(theirs),
                below: FieldSet(common(mine, theirs)),
            };
            shared.attach(step.clone(), branch);
        }
    }
    shared.0
}

fn subtract(mine: &mut Steps, theirs: &Steps) {
    for (step, theirs) in steps(theirs) {
        let Some(left) = at_mut(mine, step) else {
            continue;
        };
        let itself = has_itself(left) && !has_itself(theirs);
        subtract(left, theirs);
        mark(left, itself);
        if left.is_empty() && !itself {
            mine.remove(step);
        }
    }
}

fn meet(mine: &Steps, theirs: &Steps) -> bool {
    steps(theirs).any(|(step, theirs)| {
        at(mine, step)
            .is_some_and(|mine| has_itself(mine) && has_itself(theirs) || meet(mine, theirs))
    })
}

fn is_part(mine: &Steps, theirs: &Steps) -> bool {
    steps(mine).all(|(step, mine)| {
        at(theirs, step).is_some_and(|theirs| {
            (has_itself(theirs) || !has_itself(mine)) && is_part(mine, theirs)
        })
    })
}

fn add_parents<C: Copy>(
    fields: &mut Steps,
    context: C,
    is_part: fn(C, &str) -> bool,
    descend: fn(C, &str) -> C,
) {
    for (step, below) in fields.iter_mut().filter(|(step, _)| *step != ITSELF) {
        if let Some(below) = below.as_object_mut() {
            let itself = has_itself(below) || is_part(context, step);
            add_parents(below, descend(context, step), is_part, descend);
            mark(below, itself);
        }
    }
}

fn count(fields: &Steps) -> usize {
    let each = steps(fields).map(|(_, below)| usize::from(has_itself(below)) + count(below));
    each.sum()
}

fn collect_paths(fields: &Steps, prefix: &str, most: usize, paths: &mut Vec<String>) {
    for (step, below) in steps(fields) {
        if paths.len() >= most {
            return;
        }
        // Of a long step the beginning is written, as in every path.
        let path = format!("{prefix}{:.257}", readable(step));
        collect_paths(below, &path, most, paths);
        if has_itself(below) && paths.len() < most {
            paths.push(path);
        }
    }
}

/// Brings steps that somebody sent into the form of a set; none if they are no steps.
fn settle(fields: &mut Steps) -> Option<()> {
    let mut respelled = Vec::new();
    for (step, below) in fields.iter_mut().filter(|(step, _)| *step != ITSELF) {
        let below = below.as_object_mut()?;
        settle(below)?;
        if below.contains_key(ITSELF) {
            mark(below, true);
        }
        if let Cow::Owned(canonical) = canonical(step)? {
            respelled.push((step.clone(), canonical));
        }
    }
    for (sent, canonical) in respelled {
        if let Some(below) = fields.remove(&sent) {
            fields.insert(canonical, below);
        }
    }
    Some(())
}

/// The one spelling of a step, so that equal steps are equal texts.
fn canonical(step: &str) -> Option<Cow<'_, str>> {
    let (kind, rest) = step.split_once(':')?;
    match kind {
        "f" | "i" => Some(Cow::Borrowed(step)),
        "k" | "v" => {
            let value: Value = serde_json::from_str(rest).ok()?;
            let canonical = format!("{kind}:{value}");
            Some(if canonical == step {
                Cow::Borrowed(step)
            } else {
                Cow::Owned(canonical)
            })
        }
        _ => None,
    }
}

fn readable(step: &str) -> String {
    let (kind, rest) = step.split_once(':').unwrap_or(("f", step));
    match kind {
        "k" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let keys: Vec<String> = keys
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            format!("[{}]", keys.join(","))
        }
        "v" => format!("[={rest}]"),
        "i" => format!("[{rest}]"),
        _ => format!(".{rest}"),
    }
}
