//! What is served: every kind with its names, its rules and its schema.

use super::{
    Error, builtin,
    cel::CelRules,
    openapi::OpenApi,
    protobuf::Message,
    refusal::Subject,
    schema::{Components, Node, Schema, built_in_documents, complete, with_names},
    selector::SelectableField,
    table::Column,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

/// Which verbs a kind answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verbs {
    /// Everything.
    All,
    /// create, which stores nothing and answers at once.
    Create,
}

impl Verbs {
    /// The verbs in the order in which discovery gives them.
    pub(super) fn names(self) -> &'static [&'static str] {
        match self {
            Self::All => &[
                "delete",
                "deletecollection",
                "get",
                "list",
                "patch",
                "create",
                "update",
                "watch",
            ],
            Self::Create => &["create"],
        }
    }
}

/// What a kind means to the server itself, beyond being stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing.
    Plain,
    /// Its objects hold the objects of other kinds.
    Namespace,
    /// Its objects are kinds.
    Definition,
    /// It has data that may be written as text and is stored as base64.
    Secret,
    /// It is a question about the rights of the one who asks.
    Review,
}

/// How an object is stored, and how it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// As it is stored.
    Stored,
    /// With the apiVersion of the request: it may have been stored in another version of the kind.
    Versioned,
    /// As events.k8s.io/v1, stored as core/v1.
    NewEvent,
}

/// What the objects of a kind may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// What a host may be called, with its domain.
    Subdomain,
    /// The same without dots.
    Label,
    /// Anything that can stand in a path.
    Segment,
}

/// The rules in which the built-in kinds differ from custom ones, and from each other.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a rule of its own, and every combination occurs"
)]
pub(super) struct Rules {
    /// `/status` exists, and status is written only there.
    pub(super) status: bool,
    /// A new object may come with its status.
    pub(super) status_at_creation: bool,
    /// `metadata.generation` counts changes.
    pub(super) generation: bool,
    /// A PUT without resourceVersion overwrites.
    pub(super) unconditional: bool,
    /// The lists that a strategic patch merges by key; `None`: no strategic patches.
    pub(super) merge_keys: Option<&'static [(&'static str, &'static str)]>,
    /// How many seconds an object is kept after it was last heard of.
    pub(super) lifetime: Option<i64>,
    /// What its objects may be called.
    pub(super) names: Names,
}

/// One kind in one version.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) kind: String,
    pub(super) list_kind: String,
    pub(super) plural: String,
    pub(super) singular: String,
    pub(super) short_names: Vec<String>,
    pub(super) categories: Vec<String>,
    pub(super) namespaced: bool,
    pub(super) verbs: Verbs,
    pub(super) role: Role,
    pub(super) view: View,
    pub(super) rules: Rules,
    pub(super) columns: Vec<Column>,
    pub(super) selectable: Vec<SelectableField>,
    /// The schema as clients are told of it.
    pub(super) schema: Value,
    /// The schema as objects are held against it.
    pub(super) node: Node,
    pub(super) cel: Option<CelRules>,
    pub(super) message: Option<&'static Message>,
    /// The beginning of the keys of its objects.
    pub(super) storage: String,
    /// Whether its definition shall go, so that nothing new of it is created.
    pub(super) ends: bool,
}

impl Resource {
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Whether it is one of the server's own kinds, which no definition made.
    pub(super) fn is_built_in(&self) -> bool {
        self.rules.merge_keys.is_some()
    }

    /// The key of an object; the namespace of a cluster-wide one is empty.
    pub(super) fn key(&self, namespace: &str, name: &str) -> String {
        format!("{}{namespace}/{name}", self.storage)
    }

    /// The key that the same object would have in a real server, which some answers name.
    pub(super) fn registry_key(&self, namespace: &str, name: &str) -> String {
        let parts = [self.group.as_str(), &self.plural, namespace, name];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join("/")
    }

    /// What the keys of its objects in a namespace begin with; empty for all namespaces.
    pub(super) fn prefix(&self, namespace: &str) -> String {
        if namespace.is_empty() {
            self.storage.clone()
        } else {
            format!("{}{namespace}/", self.storage)
        }
    }

    /// The name of the definition of a custom kind.
    pub(super) fn definition(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }

    /// The subject of a refusal that names the plural.
    pub(super) fn subject<'a>(&'a self, name: &'a str) -> Subject<'a> {
        Subject {
            group: &self.group,
            kind: &self.plural,
            name,
        }
    }

    /// The subject of a refusal that names the kind.
    pub(super) fn kind_subject<'a>(&'a self, name: &'a str) -> Subject<'a> {
        Subject {
            group: &self.group,
            kind: &self.kind,
            name,
        }
    }
}

/// Everything that is served at a moment.
#[derive(Debug)]
pub(super) struct Catalog {
    resources: BTreeMap<String, Arc<Resource>>,
    components: Arc<Components>,
    open_api: OnceLock<OpenApi>,
}

impl Catalog {
    /// Puts the built-in kinds and the definitions together.
    pub(super) fn new<'a>(
        definitions: impl Iterator<Item = &'a CustomResourceDefinition>,
        components: Arc<Components>,
    ) -> Self {
        let mut resources = BTreeMap::new();
        let built_in = builtin::resources();
        let custom = definitions.flat_map(from_definition);
        for resource in custom.chain(built_in) {
            let path = path(&resource.group, &resource.version, &resource.plural);
            resources.insert(path, Arc::new(resource));
        }
        Self {
            resources,
            components,
            open_api: OnceLock::new(),
        }
    }

    /// The schemas of the built-in kinds, which are the same in every catalog of this process.
    pub(super) fn components() -> Arc<Components> {
        static SHARED: OnceLock<Arc<Components>> = OnceLock::new();
        Arc::clone(SHARED.get_or_init(|| Arc::new(Components::new(built_in_documents()))))
    }

    pub(super) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.get(&path(group, version, plural))
    }

    /// What an owner reference may name, perhaps by a version that is not served any more: an object is
    /// the same in all of them, and several definitions of a group may give their kinds one name.
    pub(super) fn by_kind<'a>(
        &'a self,
        api_version: &'a str,
        kind: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Resource>> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.resources
            .values()
            .filter(move |resource| resource.kind == kind && resource.group == group)
    }

    /// The kind whose objects have this key.
    pub(super) fn by_key(&self, key: &str) -> Option<&Arc<Resource>> {
        self.resources
            .values()
            .find(|resource| resource.verbs == Verbs::All && key.starts_with(&resource.storage))
    }

    /// The kind that plays a role for the server.
    pub(super) fn by_role(&self, role: Role) -> Option<&Arc<Resource>> {
        self.resources
            .values()
            .find(|resource| resource.role == role)
    }

    pub(super) fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    pub(super) fn schema<'a>(&'a self, resource: &'a Resource) -> Schema<'a> {
        Schema::new(&resource.node, &self.components)
    }

    /// The documents of this catalog; made when first asked for.
    pub(super) fn open_api(&self) -> &OpenApi {
        self.open_api
            .get_or_init(|| OpenApi::new(self, &self.components))
    }

    pub(super) fn shared_components(&self) -> Arc<Components> {
        Arc::clone(&self.components)
    }
}

fn path(group: &str, version: &str, plural: &str) -> String {
    format!("{group}/{version}/{plural}")
}

/// Checks that a definition can be served.
pub(super) fn check_definition(definition: &CustomResourceDefinition) -> Result<(), Error> {
    let refuse = |reason: &str| {
        Err(Error::Definition {
            name: definition.metadata.name.clone().unwrap_or_default(),
            reason: reason.to_owned(),
        })
    };
    let spec = &definition.spec;
    let name = format!("{}.{}", spec.names.plural, spec.group);
    if definition.metadata.name.as_deref() != Some(&name) {
        return refuse("its name must be <plural>.<group>");
    }
    if !spec.group.contains('.') {
        return refuse("its group must be a domain name");
    }
    if !spec.versions.iter().any(|version| version.served) {
        return refuse("it has no served version");
    }
    for version in &spec.versions {
        let rules = CelRules::of(&schema_of(version));
        if let Some(mistake) = rules.and_then(|rules| rules.mistake()) {
            return refuse(&format!("a rule of {}: {mistake}", version.name));
        }
    }
    Ok(())
}

fn from_definition(definition: &CustomResourceDefinition) -> Vec<Resource> {
    let versions = definition.spec.versions.iter();
    versions
        .filter(|version| version.served)
        .map(|version| from_version(definition, version))
        .collect()
}

/// The kind of a definition in one of its versions, whether it can be served or not.
pub(super) fn kind_of(definition: &Value) -> Option<Arc<Resource>> {
    let definition = serde_json::from_value::<CustomResourceDefinition>(definition.clone()).ok()?;
    let version = definition.spec.versions.first()?;
    Some(Arc::new(from_version(&definition, version)))
}

fn schema_of(version: &CustomResourceDefinitionVersion) -> Value {
    version
        .schema
        .as_ref()
        .and_then(|validation| validation.open_api_v3_schema.as_ref())
        .and_then(|schema| serde_json::to_value(schema).ok())
        .unwrap_or_default()
}

fn from_version(
    definition: &CustomResourceDefinition,
    version: &CustomResourceDefinitionVersion,
) -> Resource {
    let spec = &definition.spec;
    let names = &spec.names;
    let lower = names.kind.to_lowercase();
    let schema = schema_of(version);
    let status = version
        .subresources
        .as_ref()
        .is_some_and(|subresources| subresources.status.is_some());
    let cel = CelRules::of(&schema);
    let given = schema;
    let schema = complete(given.clone());
    let offered = version.selectable_fields.iter().flatten();
    let extra = offered.filter_map(|field| SelectableField::new(&field.json_path, ""));
    Resource {
        group: spec.group.clone(),
        version: version.name.clone(),
        kind: names.kind.clone(),
        list_kind: names
            .list_kind
            .clone()
            .unwrap_or_else(|| format!("{}List", names.kind)),
        plural: names.plural.clone(),
        singular: names.singular.clone().unwrap_or(lower),
        short_names: names.short_names.clone().unwrap_or_default(),
        categories: names.categories.clone().unwrap_or_default(),
        namespaced: spec.scope == "Namespaced",
        verbs: Verbs::All,
        role: Role::Plain,
        view: View::Versioned,
        rules: Rules {
            status,
            status_at_creation: !status,
            generation: true,
            unconditional: false,
            merge_keys: None,
            lifetime: None,
            names: Names::Subdomain,
        },
        columns: Column::of_definition(version.additional_printer_columns.as_deref()),
        selectable: selectable(extra),
        cel,
        node: Node::read(&with_names(&schema, &given)),
        schema,
        message: None,
        storage: format!("{}/{}/", spec.group, names.plural),
        ends: definition.metadata.deletion_timestamp.is_some(),
    }
}

/// The fields that a field selector may name: those of every kind, and these.
pub(super) fn selectable(extra: impl Iterator<Item = SelectableField>) -> Vec<SelectableField> {
    let every = ["metadata.name", "metadata.namespace"].into_iter();
    every
        .filter_map(|path| SelectableField::new(path, ""))
        .chain(extra)
        .collect()
}
