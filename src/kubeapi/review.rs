//! Questions about one's own rights, and about oneself.

use super::{
    Server,
    access::{Deed, User},
    tree::Tree,
};
use serde_json::{Value, json};

impl Server {
    /// Answers a review of any of the three kinds.
    pub(super) fn review(&self, mut review: Value, user: &User) -> Value {
        let status = match review.text("kind") {
            "SelfSubjectAccessReview" => self.access(review.field("spec"), user),
            "SelfSubjectRulesReview" => self.rules(review.field("spec").text("namespace"), user),
            _ => json!({"userInfo": {"username": user.name, "groups": user.groups}}),
        };
        review.set(&["status"], status);
        if !review.field("metadata").is_object() {
            review.set(&["metadata"], json!({}));
        }
        review
    }

    fn access(&self, spec: &Value, user: &User) -> Value {
        let path = spec.field("nonResourceAttributes");
        let objects = spec.field("resourceAttributes");
        let mut resource = objects.text("resource").to_owned();
        if !objects.text("subresource").is_empty() {
            resource = format!("{resource}/{}", objects.text("subresource"));
        }
        let deed = if path.is_object() {
            Deed::Path {
                verb: path.text("verb"),
                path: path.text("path"),
            }
        } else {
            Deed::Objects {
                verb: objects.text("verb"),
                group: objects.text("group"),
                resource: &resource,
                namespace: objects.text("namespace"),
                name: objects.text("name"),
            }
        };
        json!({"allowed": self.allows(user, deed)})
    }

    fn rules(&self, namespace: &str, user: &User) -> Value {
        let mut rules = self.rules_of(user, namespace);
        if user.is_master() {
            rules.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
            rules.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
        }
        rules.push(json!({"verbs": ["get"], "nonResourceURLs":
            ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"]}));
        rules.push(
            json!({"verbs": ["create"], "apiGroups": ["authorization.k8s.io"],
            "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]}),
        );
        rules.push(
            json!({"verbs": ["create"], "apiGroups": ["authentication.k8s.io"],
            "resources": ["selfsubjectreviews"]}),
        );
        let (paths, objects): (Vec<Value>, Vec<Value>) = rules
            .into_iter()
            .partition(|rule| rule.get("nonResourceURLs").is_some());
        json!({"incomplete": false, "nonResourceRules": paths, "resourceRules": objects})
    }
}
