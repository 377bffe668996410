//! Tables: the columns that kubectl prints.

mod age;
pub(super) mod built_in;

use super::jsonpath::{JsonPath, plain};
use crate::kubeapi::tree::Tree;
use age::age_at;
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceColumnDefinition;
use serde_json::{Map, Value, json};

const NAME_MEANING: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

const AGE_MEANING: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// One column after the name.
#[derive(Debug, Clone)]
pub(super) struct Column {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i32,
    cell: Cell,
}

#[derive(Debug, Clone)]
enum Cell {
    Path(Option<JsonPath>),
    Computed(fn(&Value) -> Value),
    ComputedAge(fn(&Value) -> Option<&Value>),
}

impl Column {
    /// The columns of a definition, or the age when it declares none.
    pub(super) fn of_definition(columns: Option<&[CustomResourceColumnDefinition]>) -> Vec<Self> {
        let Some(columns) = columns.filter(|columns| !columns.is_empty()) else {
            return vec![Self {
                description: AGE_MEANING.to_owned(),
                ..Self::age()
            }];
        };
        columns
            .iter()
            .map(|column| Self {
                name: column.name.clone(),
                kind: column.type_.clone(),
                format: column.format.clone().unwrap_or_default(),
                description: column.description.clone().unwrap_or_else(|| {
                    format!(
                        "Custom resource definition column (in JSONPath format): {}",
                        column.json_path
                    )
                }),
                priority: column.priority.unwrap_or_default(),
                cell: Cell::Path(JsonPath::parse(&column.json_path)),
            })
            .collect()
    }

    fn path(name: &str, kind: &str, path: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            format: String::new(),
            description: String::new(),
            priority: 0,
            cell: Cell::Path(JsonPath::parse(path)),
        }
    }

    fn computed(name: &str, kind: &str, cell: fn(&Value) -> Value) -> Self {
        Self {
            cell: Cell::Computed(cell),
            ..Self::path(name, kind, "")
        }
    }

    fn since(name: &str, time: fn(&Value) -> Option<&Value>) -> Self {
        Self {
            cell: Cell::ComputedAge(time),
            ..Self::path(name, "string", "")
        }
    }

    fn age() -> Self {
        Self::path("Age", "date", ".metadata.creationTimestamp")
    }

    fn wide(self) -> Self {
        Self {
            priority: 1,
            ..self
        }
    }

    fn definition(&self) -> Value {
        json!({
            "name": self.name,
            "type": self.kind,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        })
    }

    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        match &self.cell {
            Cell::Computed(cell) => cell(object),
            Cell::ComputedAge(time) => json!(age_at(time(object), now)),
            Cell::Path(path) => path
                .as_ref()
                .and_then(|path| path.find(object))
                .map_or(Value::Null, |value| self.convert(value, now)),
        }
    }

    fn convert(&self, value: &Value, now: Timestamp) -> Value {
        match self.kind.as_str() {
            _ if value.is_null() => Value::Null,
            "date" => json!(age_at(Some(value), now)),
            "string" => json!(plain(value)),
            "integer" | "number" if value.is_number() => value.clone(),
            "boolean" if value.is_boolean() => value.clone(),
            _ => Value::Null,
        }
    }
}

/// How much of each object goes with its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    pub(super) fn parse(text: &str) -> Self {
        match text {
            "None" => Self::None,
            "Object" => Self::Object,
            _ => Self::Metadata,
        }
    }
}

/// The definitions of all columns, the name first.
pub(super) fn definitions(columns: &[Column]) -> Value {
    let name = json!({
        "name": "Name",
        "type": "string",
        "format": "name",
        "description": NAME_MEANING,
        "priority": 0,
    });
    std::iter::once(name)
        .chain(columns.iter().map(Column::definition))
        .collect()
}

/// The row of an object.
pub(super) fn row(columns: &[Column], object: Value, include: Include, now: Timestamp) -> Value {
    let name = object.field("metadata").field("name").clone();
    let cells: Value = std::iter::once(name)
        .chain(columns.iter().map(|column| column.cell(&object, now)))
        .collect();
    let mut row = Map::new();
    row.insert("cells".to_owned(), cells);
    let shown = match include {
        Include::None => Value::Null,
        Include::Metadata => partial(&object),
        Include::Object => object,
    };
    row.insert("object".to_owned(), shown);
    Value::Object(row)
}

/// Only the metadata of an object.
pub(super) fn partial(object: &Value) -> Value {
    let metadata = object.field("metadata");
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

/// A table of these rows.
pub(super) fn table(definitions: Value, rows: Vec<Value>, metadata: Value) -> Value {
    let fields = [
        ("kind", json!("Table")),
        ("apiVersion", json!("meta.k8s.io/v1")),
        ("metadata", metadata),
        ("columnDefinitions", definitions),
        ("rows", Value::Array(rows)),
    ];
    fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_value_is_null_and_a_boolean_in_a_text_column_is_text() {
        let columns = [
            Column::path("Joined", "string", ".status.joined"),
            Column::path("Join", "boolean", ".spec.join"),
            Column::path("Missing", "string", ".status.nothing"),
        ];
        let object = json!({"metadata": {"name": "rome"}, "spec": {"join": true}, "status": {"joined": true}});
        let row = row(&columns, object, Include::None, Timestamp::UNIX_EPOCH);
        assert_eq!(row["cells"], json!(["rome", "true", true, null]));
    }

    #[test]
    fn a_pod_shows_its_ready_containers_and_all_restarts() {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{}, {}]}});
        let cells = |pod: &Value| {
            let row = row(
                &built_in::pods(),
                pod.clone(),
                Include::None,
                Timestamp::UNIX_EPOCH,
            );
            let cells = row["cells"].as_array().unwrap();
            cells[1..4].to_vec()
        };
        assert_eq!(cells(&pod), [json!("0/2"), Value::Null, json!("0")]);
        pod["status"] = json!({"phase": "Running", "containerStatuses":
            [{"ready": true, "restartCount": 1}, {"ready": false, "restartCount": 2}]});
        assert_eq!(cells(&pod), [json!("1/2"), json!("Running"), json!("3")]);
    }

    #[test]
    fn a_role_shows_when_it_was_made() {
        let made = "2026-01-01T00:00:00Z";
        let role = json!({"metadata": {"name": "r", "creationTimestamp": made}});
        let row = row(
            &built_in::roles(),
            role,
            Include::None,
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(row["cells"], json!(["r", made]));
    }

    #[test]
    fn a_definition_without_columns_shows_the_age() {
        let columns = Column::of_definition(None);
        let object =
            json!({"metadata": {"name": "rome", "creationTimestamp": "2026-01-01T00:00:00Z"}});
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        assert_eq!(
            row(&columns, object, Include::None, now)["cells"],
            json!(["rome", "5m"])
        );
    }
}
