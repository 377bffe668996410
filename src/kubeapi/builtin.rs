//! The table of the built-in kinds that stock tools need; nothing else is advertised.

use super::{
    access::RBAC,
    catalog::{Names, Resource, Role, Rules, Verbs, View, selectable},
    protobuf::{self, Message},
    schema::{self, reference},
    selector::SelectableField,
    table::{Column, built_in},
};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{ConfigMap, Event, Namespace, Node, Pod, Secret, ServiceAccount},
        events::v1::Event as NewEvent,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role as NamespacedRole, RoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use serde_json::{Value, json};

const OWNERS: (&str, &str) = ("metadata.ownerReferences", "uid");

const NODE_KEYS: &[(&str, &str)] = &[
    OWNERS,
    ("status.conditions", "type"),
    ("status.addresses", "type"),
];

const POD_KEYS: &[(&str, &str)] = &[
    OWNERS,
    ("spec.containers", "name"),
    ("spec.initContainers", "name"),
    ("spec.volumes", "name"),
    ("status.conditions", "type"),
];

const NAMESPACE_KEYS: &[(&str, &str)] = &[OWNERS, ("status.conditions", "type")];

const ACCOUNT_KEYS: &[(&str, &str)] = &[OWNERS, ("secrets", "name")];

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "type",
];

const NEW_EVENT_FIELDS: &[&str] = &[
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "reason",
    "reportingController",
    "type",
];

/// Every built-in kind.
pub(super) fn resources() -> Vec<Resource> {
    let mut resources = core();
    resources.extend(core_in_namespaces());
    resources.push(pods());
    resources.extend(named_groups());
    resources.extend(access());
    resources.extend(reviews());
    resources
}

fn core() -> Vec<Resource> {
    let status = Rules {
        status: true,
        ..plain_rules()
    };
    vec![
        Resource {
            short_names: words(&["ns"]),
            role: Role::Namespace,
            rules: Rules {
                merge_keys: Some(NAMESPACE_KEYS),
                names: Names::Label,
                ..status
            },
            message: Some(protobuf::NAMESPACE),
            ..stored(
                ("", "v1", "Namespace", "namespaces"),
                reference::<Namespace>(),
                &["status.phase"],
                built_in::namespaces(),
            )
        },
        Resource {
            short_names: words(&["no"]),
            rules: Rules {
                merge_keys: Some(NODE_KEYS),
                status_at_creation: true,
                ..status
            },
            ..stored(
                ("", "v1", "Node", "nodes"),
                reference::<Node>(),
                &["spec.unschedulable"],
                built_in::nodes(),
            )
        },
    ]
}

fn core_in_namespaces() -> Vec<Resource> {
    vec![
        Resource {
            namespaced: true,
            role: Role::Secret,
            message: Some(protobuf::SECRET),
            ..stored(
                ("", "v1", "Secret", "secrets"),
                reference::<Secret>(),
                &["type"],
                built_in::secrets(),
            )
        },
        Resource {
            namespaced: true,
            short_names: words(&["cm"]),
            message: Some(protobuf::CONFIG_MAP),
            ..stored(
                ("", "v1", "ConfigMap", "configmaps"),
                reference::<ConfigMap>(),
                &[],
                built_in::config_maps(),
            )
        },
        Resource {
            namespaced: true,
            short_names: words(&["ev"]),
            rules: event_rules(),
            ..stored(
                ("", "v1", "Event", "events"),
                reference::<Event>(),
                EVENT_FIELDS,
                built_in::events(),
            )
        },
        Resource {
            namespaced: true,
            short_names: words(&["sa"]),
            rules: Rules {
                merge_keys: Some(ACCOUNT_KEYS),
                ..plain_rules()
            },
            message: Some(protobuf::SERVICE_ACCOUNT),
            ..stored(
                ("", "v1", "ServiceAccount", "serviceaccounts"),
                reference::<ServiceAccount>(),
                &[],
                built_in::service_accounts(),
            )
        },
    ]
}

fn pods() -> Resource {
    Resource {
        namespaced: true,
        short_names: words(&["po"]),
        categories: words(&["all"]),
        rules: Rules {
            status: true,
            status_at_creation: true,
            generation: true,
            merge_keys: Some(POD_KEYS),
            ..plain_rules()
        },
        ..stored(
            ("", "v1", "Pod", "pods"),
            reference::<Pod>(),
            &["spec.nodeName", "status.phase"],
            built_in::pods(),
        )
    }
}

fn named_groups() -> Vec<Resource> {
    vec![
        Resource {
            namespaced: true,
            short_names: words(&["ev"]),
            view: View::NewEvent,
            rules: event_rules(),
            storage: "/events/".to_owned(),
            ..stored(
                ("events.k8s.io", "v1", "Event", "events"),
                reference::<NewEvent>(),
                NEW_EVENT_FIELDS,
                built_in::new_events(),
            )
        },
        Resource {
            namespaced: true,
            rules: Rules {
                unconditional: false,
                ..plain_rules()
            },
            ..stored(
                ("coordination.k8s.io", "v1", "Lease", "leases"),
                reference::<Lease>(),
                &[],
                built_in::leases(),
            )
        },
        Resource {
            short_names: words(&["crd", "crds"]),
            categories: words(&["api-extensions"]),
            role: Role::Definition,
            rules: Rules {
                status: true,
                generation: true,
                unconditional: false,
                ..plain_rules()
            },
            ..stored(
                (
                    "apiextensions.k8s.io",
                    "v1",
                    "CustomResourceDefinition",
                    "customresourcedefinitions",
                ),
                reference::<CustomResourceDefinition>(),
                &[],
                built_in::definitions(),
            )
        },
    ]
}

fn access() -> Vec<Resource> {
    let rbac = |kind: &str, plural: &str, schema, columns| Resource {
        message: Some(if plural.ends_with("bindings") {
            protobuf::BINDING
        } else {
            protobuf::ROLE
        }),
        rules: Rules {
            names: Names::Segment,
            ..plain_rules()
        },
        ..stored((RBAC, "v1", kind, plural), schema, &[], columns)
    };
    vec![
        Resource {
            namespaced: true,
            ..rbac(
                "Role",
                "roles",
                reference::<NamespacedRole>(),
                built_in::roles(),
            )
        },
        Resource {
            namespaced: true,
            ..rbac(
                "RoleBinding",
                "rolebindings",
                reference::<RoleBinding>(),
                built_in::bindings(),
            )
        },
        rbac(
            "ClusterRole",
            "clusterroles",
            reference::<ClusterRole>(),
            built_in::roles(),
        ),
        rbac(
            "ClusterRoleBinding",
            "clusterrolebindings",
            reference::<ClusterRoleBinding>(),
            built_in::bindings(),
        ),
    ]
}

fn reviews() -> Vec<Resource> {
    vec![
        review(
            (
                "authorization.k8s.io",
                "SelfSubjectAccessReview",
                "selfsubjectaccessreviews",
            ),
            protobuf::ACCESS_REVIEW,
        ),
        review(
            (
                "authorization.k8s.io",
                "SelfSubjectRulesReview",
                "selfsubjectrulesreviews",
            ),
            protobuf::RULES_REVIEW,
        ),
        review(
            (
                "authentication.k8s.io",
                "SelfSubjectReview",
                "selfsubjectreviews",
            ),
            protobuf::SUBJECT_REVIEW,
        ),
    ]
}

fn review((group, kind, plural): (&str, &str, &str), message: &'static Message) -> Resource {
    Resource {
        verbs: Verbs::Create,
        role: Role::Review,
        message: Some(message),
        ..stored(
            (group, "v1", kind, plural),
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
            &[],
            Vec::new(),
        )
    }
}

/// Events are news: like a real server, this one forgets them after an hour.
fn event_rules() -> Rules {
    Rules {
        lifetime: Some(3_600),
        ..plain_rules()
    }
}

fn plain_rules() -> Rules {
    Rules {
        status: false,
        status_at_creation: false,
        generation: false,
        unconditional: true,
        merge_keys: Some(&[OWNERS]),
        lifetime: None,
        names: Names::Subdomain,
    }
}

fn stored(
    (group, version, kind, plural): (&str, &str, &str, &str),
    schema: Value,
    fields: &[&str],
    columns: Vec<Column>,
) -> Resource {
    Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        list_kind: format!("{kind}List"),
        plural: plural.to_owned(),
        singular: kind.to_lowercase(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: false,
        verbs: Verbs::All,
        role: Role::Plain,
        view: View::Stored,
        rules: plain_rules(),
        columns,
        selectable: selectable(
            fields
                .iter()
                .filter_map(|field| SelectableField::new(field, unset(field))),
        ),
        node: schema::Node::read(&schema),
        schema,
        cel: None,
        message: None,
        storage: format!("{group}/{plural}/"),
        ends: false,
    }
}

/// What a field of a built-in kind counts as where it is missing; a boolean is false on a real server.
fn unset(field: &str) -> &'static str {
    match field {
        "spec.unschedulable" => "false",
        _ => "",
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}
