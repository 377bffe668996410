//! `metadata.managedFields`: who owns which field, kept up with every write.

use super::{
    bounds,
    catalog::{Resource, View},
    fields::{Branch, FieldSet, named},
    naming,
    refusal::{FieldError, Refusal},
    schema::Schema,
    tree::Tree,
    typed::{Comparison, compare},
};
use crate::kubeapi::admission::{Part, same_fields};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, mem, sync::LazyLock};

/// How many managers that update an object are kept apart.
const MOST_UPDATERS: usize = 10;

/// The longest name of a manager.
pub(super) const LONGEST_NAME: usize = 128;

/// The manager that the oldest of too many become.
const ANCIENT: &str = "ancient-changes";

/// The manager of what an object had before anybody's fields were kept.
const BEFORE: &str = "before-first-apply";

/// Fields that nobody owns: the server writes them.
const NOBODYS: &[&str] = &[
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// How a manager came by its fields; appliers are listed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// Who writes, and how.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Manager {
    pub(super) name: String,
    pub(super) operation: Operation,
    /// Empty for appliers, who stay the same in every version.
    pub(super) version: String,
    pub(super) subresource: String,
}

impl Manager {
    /// The manager of a request to this part of an object.
    pub(super) fn new(name: &str, operation: Operation, resource: &Resource, part: Part) -> Self {
        Self {
            name: name.to_owned(),
            operation,
            version: match operation {
                Operation::Apply => String::new(),
                Operation::Update => resource.api_version(),
            },
            subresource: part.name().to_owned(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) version: String,
    pub(super) fields: FieldSet,
    time: String,
}

/// The managers of one object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Managers(pub(super) BTreeMap<Manager, Owned>);

/// What a comparison of fields needs to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) resource: &'a Resource,
    pub(super) schema: Schema<'a>,
    pub(super) part: Part,
    pub(super) now: jiff::Timestamp,
}

impl Setting<'_> {
    /// Whether this part of the object is what the request can write.
    pub(super) fn writes(&self, step: &str) -> bool {
        match self.part {
            Part::Main => step != "f:status" || !self.resource.rules.status,
            Part::Status => {
                step == "f:status" || step == "f:metadata" && self.resource.is_built_in()
            }
            Part::Finalize => step == "f:spec",
        }
    }

    pub(super) fn compare(&self, old: &Value, new: &Value) -> Comparison {
        compare(self.schema, old, new).filtered(|step| self.writes(step))
    }

    fn time(&self) -> String {
        let time = naming::time(self.now);
        time.as_str().unwrap_or_default().to_owned()
    }

    /// Whether the fields of a manager can be compared with an object of this version.
    fn speaks(&self, version: &str) -> bool {
        // The versions of a built-in kind may name its fields differently, as the two of an event do.
        version == self.resource.api_version() || self.resource.view == View::Versioned
    }
}

impl Managers {
    /// Reads the managers of an object; `None` when there is something that is none.
    pub(super) fn decode(list: Value) -> Option<Self> {
        let mut managers = BTreeMap::new();
        let Value::Array(entries) = list else {
            return Some(Self::default());
        };
        for mut entry in entries {
            let operation = match entry.text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return None,
            };
            let version = entry.text("apiVersion").to_owned();
            let manager = Manager {
                name: entry.text("manager").to_owned(),
                operation,
                version: match operation {
                    Operation::Apply => String::new(),
                    Operation::Update => version.clone(),
                },
                subresource: entry.text("subresource").to_owned(),
            };
            let owned = Owned {
                version,
                fields: FieldSet::decode(entry.get_mut("fieldsV1")?.take())?,
                time: entry.text("time").to_owned(),
            };
            managers.insert(manager, owned);
        }
        Some(Self(managers))
    }

    /// Writes the managers: appliers first, each group by time.
    pub(super) fn encode(self) -> Value {
        let mut entries: Vec<(Manager, Owned)> = self.0.into_iter().collect();
        entries.sort_by(|one, other| rank(one).cmp(&rank(other)));
        entries
            .into_iter()
            .map(|(manager, owned)| entry(manager, owned))
            .collect()
    }

    /// Takes from all managers but one what they no longer own.
    pub(super) fn release(
        &mut self,
        setting: Setting<'_>,
        keeper: Option<&Manager>,
        change: &Comparison,
    ) {
        for (manager, owned) in &mut self.0 {
            if keeper == Some(manager) || !setting.speaks(&owned.version) {
                continue;
            }
            for lost in [&change.modified, &change.added, &change.removed] {
                if owned.fields.meets(lost) {
                    owned.fields = mem::take(&mut owned.fields).difference(lost);
                }
            }
        }
        self.0.retain(|_, owned| !owned.fields.is_empty());
    }

    /// Gives fields to a manager.
    pub(super) fn give(&mut self, setting: Setting<'_>, manager: &Manager, fields: FieldSet) {
        let fields = fields.difference(&NOBODYS_SET);
        if fields.is_empty() {
            return;
        }
        let version = setting.resource.api_version();
        let known = self.0.remove(manager);
        let fields = match known {
            Some(known) if fields.is_part_of(&known.fields) => known.fields,
            Some(known) => known.fields.union(&fields),
            None => fields,
        };
        let owned = Owned {
            version,
            fields,
            time: setting.time(),
        };
        self.0.insert(manager.clone(), owned);
    }

    /// Gives what an object has to the manager of what was there before.
    pub(super) fn begin(&mut self, setting: Setting<'_>, live: &Value) {
        let empty = json!({"apiVersion": live.field("apiVersion"), "kind": live.field("kind")});
        let all = compare(setting.schema, &empty, live);
        let before = Manager::new(BEFORE, Operation::Update, setting.resource, Part::Main);
        self.give(setting, &before, all.added);
    }

    /// Makes one of the oldest updaters when there are too many.
    fn limit(&mut self) {
        let updaters = self.0.iter();
        let updaters = updaters.filter(|(manager, _)| manager.operation == Operation::Update);
        let mut count = updaters.clone().count();
        if count <= MOST_UPDATERS {
            return;
        }
        let updaters = updaters.map(|(manager, owned)| (owned.time.clone(), manager.clone()));
        let mut updaters: Vec<(String, Manager)> = updaters.collect();
        updaters.sort();
        for (_, old) in updaters {
            if count <= MOST_UPDATERS {
                return;
            }
            let ancient = Manager {
                name: ANCIENT.to_owned(),
                subresource: String::new(),
                ..old.clone()
            };
            if old == ancient {
                continue;
            }
            let Some(mut owned) = self.0.remove(&old) else {
                continue;
            };
            if let Some(known) = self.0.remove(&ancient) {
                owned.fields = known.fields.union(&owned.fields);
                owned.time = owned.time.max(known.time);
                count -= 1;
            }
            self.0.insert(ancient, owned);
        }
    }

    fn same_fields(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().all(|(manager, owned)| {
                other.0.get(manager).is_some_and(|known| {
                    known.fields == owned.fields && known.version == owned.version
                })
            })
    }
}

/// The fields of `NOBODYS`, as a set.
static NOBODYS_SET: LazyLock<FieldSet> = LazyLock::new(|| {
    let itself = || Branch {
        itself: true,
        below: FieldSet::default(),
    };
    let mut metadata = itself();
    for field in NOBODYS {
        metadata.below.attach(named(field), itself());
    }
    let mut nobodys = FieldSet::default();
    for field in ["apiVersion", "kind"] {
        nobodys.attach(named(field), itself());
    }
    nobodys.attach(named("metadata"), metadata);
    nobodys
});

/// Where a manager stands in the list.
fn rank((manager, owned): &(Manager, Owned)) -> (Operation, &str, &str, &str) {
    let time = owned.time.as_str();
    (manager.operation, time, &manager.name, &owned.version)
}

/// How a manager stands in the list.
fn entry(manager: Manager, owned: Owned) -> Value {
    let operation = match manager.operation {
        Operation::Apply => "Apply",
        Operation::Update => "Update",
    };
    let mut entry = Map::new();
    let mut put = |field: &str, value: Value| entry.insert(field.to_owned(), value);
    put("manager", manager.name.into());
    put("operation", operation.into());
    put("apiVersion", owned.version.into());
    put("fieldsType", "FieldsV1".into());
    put("fieldsV1", owned.fields.encode());
    if !owned.time.is_empty() {
        put("time", owned.time.into());
    }
    if !manager.subresource.is_empty() {
        put("subresource", manager.subresource.into());
    }
    Value::Object(entry)
}

/// The managers that count for a write: those in the sent object if it has any, else the old ones.
fn standing(setting: Setting<'_>, old: &Value, sent: Value) -> Managers {
    let known = old.field("metadata").field("managedFields");
    let decode_known = || Managers::decode(known.clone()).unwrap_or_default();
    // A subresource cannot send others; the same ones are read without a copy.
    if setting.part != Part::Main && sent != *known {
        return decode_known();
    }
    if sent
        .as_array()
        .is_some_and(|list| matches!(list.as_slice(), [Value::Object(entry)] if entry.is_empty()))
    {
        return Managers::default();
    }
    Managers::decode(sent)
        .filter(|managers| !managers.0.is_empty())
        .unwrap_or_else(decode_known)
}

/// Keeps the managers of an object that is created or updated (not applied).
pub(super) fn track(
    setting: Setting<'_>,
    manager: &Manager,
    old: Option<&Value>,
    object: &mut Value,
) {
    let sent = take(object);
    let managers = match old {
        None => {
            let empty =
                json!({"apiVersion": object.field("apiVersion"), "kind": object.field("kind")});
            let mut managers = Managers::decode(sent).unwrap_or_default();
            let all = compare(setting.schema, &empty, object);
            managers.give(setting, manager, all.added);
            managers
        }
        Some(old) => {
            let mut managers = standing(setting, old, sent);
            if !managers.0.is_empty() {
                let change = setting.compare(old, object);
                managers.release(setting, None, &change);
                managers.give(setting, manager, change.added.union(&change.modified));
            }
            managers
        }
    };
    write(object, managers);
}

/// Puts managers into an object.
pub(super) fn write(object: &mut Value, mut managers: Managers) {
    managers.limit();
    if !managers.0.is_empty() {
        object.set(&["metadata", "managedFields"], managers.encode());
    }
}

/// Puts the old managers back when only their times would differ: then a write has no effect.
pub(super) fn keep_times(old: &Value, object: &mut Value) {
    let known = old.field("metadata").field("managedFields");
    if !known.is_array() || !differ_only_in_managers(old, object) {
        return;
    }
    let managers = |list: &Value| Managers::decode(list.clone()).unwrap_or_default();
    let present = object.field("metadata").field("managedFields");
    if managers(known).same_fields(&managers(present)) {
        object.set(&["metadata", "managedFields"], known.clone());
    }
}

fn differ_only_in_managers(old: &Value, object: &Value) -> bool {
    let (before, after) = (old.field("metadata"), object.field("metadata"));
    same_fields(old, object, |name| name != "metadata")
        && same_fields(before, after, |name| name != "managedFields")
}

/// Refuses an object that is too large or too deep. One that is so only by its managers loses them, as
/// on a real server: who owns what is worth less than the object.
pub(super) fn fit(object: &mut Value) -> Result<(), Refusal> {
    let Err(refusal) = bounds::check(object) else {
        return Ok(());
    };
    if take(object).is_null() {
        return Err(refusal);
    }
    bounds::check(object)
}

/// What is wrong with the name of a manager.
pub(super) fn check_name(field: &str, name: &str) -> Option<FieldError> {
    (name.chars().count() > LONGEST_NAME).then(|| FieldError {
        field: field.to_owned(),
        reason: "FieldValueTooLong",
        message: format!("Too long: may not be more than {LONGEST_NAME} bytes"),
    })
}

/// What is wrong with the names of sent managers; those that there were before are let be.
pub(super) fn check_names(managers: &Value, old: &Value) -> impl Iterator<Item = FieldError> {
    let old = old.as_array().map_or(&[][..], Vec::as_slice);
    let managers = managers.as_array().into_iter().flatten().enumerate();
    managers.filter_map(|(index, manager)| {
        let name = manager.field("manager");
        if old.iter().any(|known| known.field("manager") == name) {
            return None;
        }
        let field = format!("metadata.managedFields[{index}].manager");
        check_name(&field, manager.text("manager"))
    })
}

/// Takes the managers out of an object.
pub(super) fn take(object: &mut Value) -> Value {
    object
        .get_mut("metadata")
        .and_then(Value::as_object_mut)
        .and_then(|metadata| metadata.remove("managedFields"))
        .unwrap_or_default()
}
