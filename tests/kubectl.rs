//! A stock kubectl against the API on loopback TLS: every verb that people use.

#[path = "kubectl/cluster.rs"]
mod cluster;

use cluster::Cluster;
use serde_json::json;

const FOREIGN_CLUSTER: &str = "
apiVersion: discovery.liqo.io/v1alpha1
kind: ForeignCluster
metadata:
  name: rome
spec:
  authUrl: https://10.0.0.2:5870
";

macro_rules! cluster {
    () => {
        match Cluster::start() {
            Ok(cluster) => cluster,
            Err(why) => {
                println!("skipped: {why}");
                return;
            }
        }
    };
}

#[test]
fn get_prints_every_output() {
    let cluster = cluster!();
    assert!(
        cluster
            .run("get foreignclusters")
            .stderr
            .contains("No resources found")
    );
    cluster.apply(FOREIGN_CLUSTER);
    let table = cluster.ok("get fc");
    assert!(table.starts_with("NAME"), "{table}");
    assert!(
        table.contains("OUTGOING JOINED") && table.contains("rome"),
        "{table}"
    );
    assert!(cluster.ok("get fc rome -o wide").contains("rome"));
    assert_eq!(
        cluster.ok("get fc -o name"),
        "foreigncluster.discovery.liqo.io/rome\n"
    );
    assert_eq!(
        cluster.json("get fc rome -o json")["spec"]["authUrl"],
        "https://10.0.0.2:5870"
    );
    assert!(
        cluster
            .ok("get fc rome -o yaml")
            .contains("authUrl: https://10.0.0.2:5870")
    );
    assert_eq!(
        cluster.ok("get fc -o jsonpath={.items[*].metadata.name}"),
        "rome"
    );
    let custom = cluster.ok("get fc -o custom-columns=N:.metadata.name,U:.spec.authUrl");
    assert!(custom.contains("https://10.0.0.2:5870"));
    assert!(cluster.ok("get fc --show-labels").contains("<none>"));
    assert!(
        cluster
            .ok("get fc --field-selector metadata.name=rome -o name")
            .contains("rome")
    );
    assert!(
        cluster
            .run("get fc -l a=b")
            .stderr
            .contains("No resources found")
    );
    assert!(cluster.run("get fc milan").stderr.contains("NotFound"));
    assert!(
        cluster
            .run("get nosuch")
            .stderr
            .contains("doesn't have a resource type")
    );
}

#[test]
fn get_shows_the_built_in_kinds() {
    let cluster = cluster!();
    let namespaces = cluster.ok("get namespaces");
    for name in ["default", "kube-node-lease", "kube-system", "liqo"] {
        assert!(namespaces.contains(name), "{namespaces}");
    }
    cluster.apply("{apiVersion: v1, kind: Node, metadata: {name: liqo-1}}");
    assert!(cluster.ok("get nodes -o wide").contains("Unknown"));
    assert!(
        cluster
            .ok("get crds")
            .contains("foreignclusters.discovery.liqo.io")
    );
    for kind in ["secrets", "configmaps", "events", "leases", "pods"] {
        let answer = cluster.run(&format!("get {kind} -A"));
        assert!(
            answer.success && answer.stderr.contains("No resources found"),
            "{answer:?}"
        );
    }
}

#[test]
fn get_watches() {
    let cluster = cluster!();
    cluster.apply(FOREIGN_CLUSTER);
    let mut watch = cluster.follow("get fc -w -o name");
    assert!(watch.next_line().ends_with("rome"));
    cluster.ok("label fc rome site=a");
    assert!(watch.next_line().ends_with("rome"));
    cluster.apply(&FOREIGN_CLUSTER.replace("rome", "milan"));
    assert!(watch.next_line().ends_with("milan"));
    let mut table = cluster.follow("get fc rome -w");
    assert!(table.next_line().starts_with("NAME"));
    assert!(table.next_line().starts_with("rome"));
    cluster.ok("annotate fc rome note=x");
    assert!(table.next_line().starts_with("rome"));
}

#[test]
fn apply_creates_changes_and_leaves_alone() {
    let cluster = cluster!();
    assert!(cluster.apply(FOREIGN_CLUSTER).contains("created"));
    assert!(cluster.apply(FOREIGN_CLUSTER).contains("unchanged"));
    let joined = FOREIGN_CLUSTER.replace("spec:", "spec:\n  join: true");
    assert!(cluster.apply(&joined).contains("configured"));
    assert_eq!(cluster.ok("get fc rome -o jsonpath={.spec.join}"), "true");
    assert!(cluster.apply(FOREIGN_CLUSTER).contains("configured"));
    assert_eq!(cluster.ok("get fc rome -o jsonpath={.spec.join}"), "false");
    let dry = cluster.with_input("apply --dry-run=server -f -", &joined);
    assert!(
        dry.stdout.contains("configured (server dry run)"),
        "{dry:?}"
    );
    assert_eq!(cluster.ok("get fc rome -o jsonpath={.spec.join}"), "false");
    let diff = cluster.with_input("diff -f -", &joined);
    assert!(diff.stdout.contains("join: true"), "{diff:?}");
}

#[test]
fn apply_refuses_what_the_schema_does_not_know() {
    let cluster = cluster!();
    let bogus = FOREIGN_CLUSTER.replace("spec:", "spec:\n  bogus: 1");
    let answer = cluster.with_input("apply -f -", &bogus);
    assert!(
        answer.stderr.contains("unknown field \"spec.bogus\""),
        "{answer:?}"
    );
    let wrong = FOREIGN_CLUSTER.replace("https://10.0.0.2:5870", "[1]");
    let answer = cluster.with_input("apply -f -", &wrong);
    assert!(answer.stderr.contains("spec.authUrl"), "{answer:?}");
}

#[test]
fn apply_and_taint_change_nodes_and_config_maps() {
    let cluster = cluster!();
    let node = "{apiVersion: v1, kind: Node, metadata: {name: alpha}, spec: {taints: [{key: a, effect: NoSchedule}]}}";
    cluster.apply(node);
    cluster.ok("taint node alpha b=1:NoExecute");
    let taints = "get node alpha -o jsonpath={.spec.taints[*].key}";
    assert_eq!(cluster.ok(taints), "b a");
    cluster.ok("taint node alpha b-");
    assert_eq!(cluster.ok(taints), "a");
    assert!(
        cluster
            .apply(&node.replace("key: a", "key: c"))
            .contains("configured")
    );
    assert_eq!(cluster.ok(taints), "c");
    cluster.ok("cordon alpha");
    assert!(cluster.ok("get nodes").contains("SchedulingDisabled"));
    let map = "{apiVersion: v1, kind: ConfigMap, metadata: {name: map}, data: {a: '1', b: '2'}}";
    cluster.apply(map);
    assert!(
        cluster
            .apply(&map.replace(", b: '2'", ""))
            .contains("configured")
    );
    assert_eq!(
        cluster.ok("get cm map -o jsonpath={.data}"),
        "{\"a\":\"1\"}"
    );
}

#[test]
fn create_makes_objects_once() {
    let cluster = cluster!();
    let made = cluster.with_input("create -f -", FOREIGN_CLUSTER);
    assert!(made.stdout.contains("created"), "{made:?}");
    let again = cluster.with_input("create -f -", FOREIGN_CLUSTER);
    assert!(again.stderr.contains("AlreadyExists"), "{again:?}");
    cluster.ok("create namespace team");
    cluster.ok("create configmap settings --from-literal=a=b -n team");
    cluster.ok("create secret generic token --from-literal=key=value -n team");
    assert_eq!(
        cluster.ok("get secret token -n team -o jsonpath={.data.key}"),
        "dmFsdWU="
    );
    assert_eq!(
        cluster.ok("get cm settings -n team -o jsonpath={.data.a}"),
        "b"
    );
    let lost = cluster.run("create configmap settings -n nowhere");
    assert!(
        lost.stderr.contains("namespaces \"nowhere\" not found"),
        "{lost:?}"
    );
    assert!(
        cluster
            .ok("auth can-i create foreignclusters")
            .contains("yes")
    );
    assert!(cluster.ok("auth whoami").contains("landbridge:admin"));
}

#[test]
fn patch_merges_and_follows_json_patches() {
    let cluster = cluster!();
    cluster.apply(FOREIGN_CLUSTER);
    cluster.args(&[
        "patch",
        "foreignclusters",
        "rome",
        "--type",
        "merge",
        "-p",
        r#"{"spec":{"join":true}}"#,
    ]);
    assert_eq!(cluster.ok("get fc rome -o jsonpath={.spec.join}"), "true");
    cluster.args(&[
        "patch",
        "fc",
        "rome",
        "--type",
        "merge",
        "-p",
        r#"{"status":{"authStatus":"Pending"}}"#,
    ]);
    assert_eq!(
        cluster.ok("get fc rome -o jsonpath={.status.authStatus}"),
        "Pending"
    );
    let json = r#"[{"op":"test","path":"/spec/join","value":true},{"op":"replace","path":"/spec/join","value":false}]"#;
    cluster.args(&["patch", "fc", "rome", "--type", "json", "-p", json]);
    assert_eq!(cluster.ok("get fc rome -o jsonpath={.spec.join}"), "false");
    let failed = cluster.try_args(&["patch", "fc", "rome", "--type", "json", "-p", json]);
    assert!(!failed.success);
    let strategic = cluster.try_args(&["patch", "fc", "rome", "-p", r#"{"spec":{"join":true}}"#]);
    assert!(
        strategic.stderr.contains("is not supported"),
        "{strategic:?}"
    );
}

#[test]
fn edit_saves_what_the_editor_wrote() {
    let cluster = cluster!();
    cluster.apply(FOREIGN_CLUSTER);
    let edited = cluster.edit("edit fc rome", "s/join: false/join: true/");
    assert!(edited.stdout.contains("edited"), "{edited:?}");
    assert_eq!(cluster.ok("get fc rome -o jsonpath={.spec.join}"), "true");
    cluster.ok("create configmap settings --from-literal=a=b");
    let edited = cluster.edit("edit cm settings", "s/a: b/a: c/");
    assert!(edited.stdout.contains("edited"), "{edited:?}");
    assert_eq!(cluster.ok("get cm settings -o jsonpath={.data.a}"), "c");
}

#[test]
fn replace_needs_the_object() {
    let cluster = cluster!();
    assert!(!cluster.with_input("replace -f -", FOREIGN_CLUSTER).success);
    cluster.apply(FOREIGN_CLUSTER);
    let replaced = cluster.with_input(
        "replace -f -",
        &FOREIGN_CLUSTER.replace("10.0.0.2", "10.0.0.3"),
    );
    assert!(replaced.stdout.contains("replaced"), "{replaced:?}");
}

#[test]
fn delete_waits_for_finalizers() {
    let cluster = cluster!();
    cluster.apply(FOREIGN_CLUSTER);
    assert!(cluster.ok("delete fc rome").contains("deleted"));
    assert!(cluster.run("get fc rome").stderr.contains("NotFound"));
    cluster.apply(&FOREIGN_CLUSTER.replace("name: rome", "name: held\n  finalizers: [a.b/c]"));
    let mut deletion = cluster.follow("delete fc held");
    assert!(deletion.next_line().contains("deleted"));
    cluster.args(&[
        "patch",
        "fc",
        "held",
        "--type",
        "merge",
        "-p",
        r#"{"metadata":{"finalizers":null}}"#,
    ]);
    assert!(deletion.ends_well());
    cluster.apply(FOREIGN_CLUSTER);
    assert!(cluster.ok("delete fc --all").contains("deleted"));
    cluster.ok("create namespace team");
    cluster.ok("create configmap settings -n team");
    cluster.ok("delete namespace team");
    assert!(
        cluster
            .run("get namespace team")
            .stderr
            .contains("NotFound")
    );
}

#[test]
fn label_and_annotate_add_and_remove() {
    let cluster = cluster!();
    cluster.apply(FOREIGN_CLUSTER);
    cluster.apply("{apiVersion: v1, kind: Node, metadata: {name: alpha}}");
    for object in ["fc rome", "node alpha"] {
        cluster.ok(&format!("label {object} site=a"));
        assert_eq!(
            cluster.ok(&format!(
                "get {object} -o jsonpath={{.metadata.labels.site}}"
            )),
            "a"
        );
        cluster.ok(&format!("label {object} site=b --overwrite"));
        cluster.ok(&format!("label {object} site-"));
        cluster.ok(&format!("annotate {object} note=x"));
        assert_eq!(
            cluster.ok(&format!(
                "get {object} -o jsonpath={{.metadata.annotations.note}}"
            )),
            "x"
        );
        cluster.ok(&format!("annotate {object} note-"));
    }
}

#[test]
fn wait_sees_values_and_deletions() {
    let cluster = cluster!();
    cluster.apply(FOREIGN_CLUSTER);
    let mut value = cluster.follow("wait fc rome --for=jsonpath={.spec.join}=true --timeout=60s");
    cluster.args(&[
        "patch",
        "fc",
        "rome",
        "--type",
        "merge",
        "-p",
        r#"{"spec":{"join":true}}"#,
    ]);
    assert!(value.next_line().contains("condition met"));
    let deletion = cluster.follow("wait fc rome --for=delete --timeout=60s");
    cluster.ok("delete fc rome");
    assert!(deletion.ends_well());
}

#[test]
fn explain_tells_what_fields_mean() {
    let cluster = cluster!();
    let text = cluster.ok("explain foreignclusters.spec");
    assert!(
        text.contains("authUrl") && text.contains("-required-"),
        "{text}"
    );
    assert!(cluster.ok("explain fc --recursive").contains("clusterID"));
    assert!(cluster.ok("explain node.spec.taints").contains("effect"));
}

#[test]
fn describe_shows_an_object_with_its_events() {
    let cluster = cluster!();
    cluster.apply(FOREIGN_CLUSTER);
    let object = cluster.json("get fc rome -o json");
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": "rome.1", "namespace": "default"},
        "eventTime": "2026-11-21T00:00:00.000000Z", "type": "Normal", "action": "Discover",
        "reason": "PeerDiscovered", "note": "found on the lan",
        "reportingController": "landbridge", "reportingInstance": "landbridge-1",
        "regarding": {"apiVersion": "discovery.liqo.io/v1alpha1", "kind": "ForeignCluster",
            "name": "rome", "uid": object["metadata"]["uid"]},
    });
    let made = cluster.with_input("create -f -", &event.to_string());
    assert!(made.success, "{made:?}");
    let text = cluster.ok("describe fc rome");
    assert!(
        text.contains("Auth URL:") || text.contains("authUrl"),
        "{text}"
    );
    assert!(
        text.contains("PeerDiscovered") && text.contains("found on the lan"),
        "{text}"
    );
    assert!(cluster.ok("get events").contains("PeerDiscovered"));
    assert!(cluster.ok("events").contains("PeerDiscovered"));
    cluster.apply("{apiVersion: v1, kind: Node, metadata: {name: alpha}}");
    assert!(cluster.ok("describe node alpha").contains("Unschedulable"));
    cluster.ok("describe namespace default");
}

#[test]
fn api_resources_lists_the_kinds() {
    let cluster = cluster!();
    let kinds = cluster.ok("api-resources");
    for kind in [
        "foreignclusters",
        "searchdomains",
        "nodes",
        "leases",
        "customresourcedefinitions",
    ] {
        assert!(kinds.contains(kind), "{kinds}");
    }
    assert!(
        cluster
            .ok("api-resources --categories=liqo")
            .contains("foreignclusters")
    );
    assert!(
        cluster
            .ok("api-versions")
            .contains("discovery.liqo.io/v1alpha1")
    );
    assert!(cluster.ok("version").contains("Server Version: v1.33"));
}

const PORTS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ports.sea.test}
spec:
  group: sea.test
  scope: Namespaced
  names: {kind: Port, plural: ports, shortNames: [po2], categories: [sea]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns:
    - {name: Depth, type: integer, jsonPath: .spec.depth}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {depth: {type: integer, minimum: 1, default: 5}}}
          status: {type: object, properties: {ships: {type: integer}}}
";

#[test]
fn a_definition_that_is_applied_is_served() {
    let cluster = cluster!();
    cluster.apply(PORTS);
    cluster.ok("wait crd ports.sea.test --for=condition=Established --timeout=10s");
    let ostia = "{apiVersion: sea.test/v1, kind: Port, metadata: {name: ostia}, spec: {}}";
    cluster.apply(ostia);
    for kind in ["ports", "po2", "sea"] {
        let table = cluster.ok(&format!("get {kind}"));
        assert!(
            table.contains("DEPTH") && table.contains("ostia"),
            "{table}"
        );
    }
    let unknown = ostia.replace("spec: {}", "spec: {sails: 3}");
    let refused = cluster.with_input("apply -f -", &unknown);
    assert!(refused.stderr.contains("unknown field"), "{refused:?}");
    let pruned = cluster.with_input("apply --validate=false -f -", &unknown);
    assert!(pruned.success, "{pruned:?}");
    assert_eq!(
        cluster.ok("get ports ostia -o jsonpath={.spec}"),
        r#"{"depth":5}"#
    );
    assert_eq!(cluster.ok("get ports ostia -o jsonpath={.spec.depth}"), "5");
    let patch = r#"{"status":{"ships":3}}"#;
    cluster.args(&[
        "patch",
        "port",
        "ostia",
        "--subresource=status",
        "--type",
        "merge",
        "-p",
        patch,
    ]);
    assert_eq!(
        cluster.ok("get ports ostia -o jsonpath={.status.ships}"),
        "3"
    );
    cluster.ok("delete crd ports.sea.test");
    assert!(!cluster.run("get ports").success);
}

#[test]
fn a_client_without_its_certificate_gets_nothing() {
    let cluster = cluster!();
    let answer = cluster.stranger("get fc");
    assert!(
        !answer.success && answer.stderr.contains("provide credentials"),
        "{answer:?}"
    );
}

/// What an old kubectl cannot do without OpenAPI v2 fails before anything is changed.
#[test]
fn every_version_on_the_machine_can_do_what_it_should() {
    let mut cluster = cluster!();
    let versions = cluster::every_kubectl();
    if versions.is_empty() {
        println!("skipped: there is only one kubectl");
    }
    for (minor, kubectl) in versions {
        cluster.use_kubectl(kubectl);
        let name = format!("rome-{minor}");
        let manifest = FOREIGN_CLUSTER.replace("rome", &name);
        let applied = cluster.with_input("apply -f -", &manifest);
        if minor >= 29 {
            assert!(applied.success, "{minor}: {applied:?}");
        } else {
            let helps = applied.stderr.contains("--validate=false");
            assert!(!applied.success && helps, "{minor}: {applied:?}");
            for command in ["create -f -", "replace -f -", "diff -f -"] {
                let refused = cluster.with_input(command, &manifest);
                let helps = refused.stderr.contains("kubectl 1.29");
                assert!(!refused.success && helps, "{minor} {command}: {refused:?}");
            }
            let created = cluster.with_input("create --validate=false -f -", &manifest);
            assert!(created.success, "{minor}: {created:?}");
        }
        assert!(cluster.ok("get fc").contains(&name), "{minor}");
        let patch = r#"{"spec":{"join":true}}"#;
        cluster.args(&["patch", "fc", &name, "--type", "merge", "-p", patch]);
        cluster.ok(&format!("label fc {name} site=a"));
        let shown = cluster.ok(&format!("get fc {name} -o jsonpath={{.spec.join}}"));
        assert_eq!(shown, "true", "{minor}");
        let server_side = cluster.with_input(
            "apply --server-side --validate=false --force-conflicts -f -",
            &manifest,
        );
        assert!(server_side.success, "{minor}: {server_side:?}");
        cluster.ok(&format!("delete fc {name}"));
    }
}

#[test]
fn apply_on_the_server_keeps_and_takes_fields() {
    let cluster = cluster!();
    cluster.apply(FOREIGN_CLUSTER);
    let moved = FOREIGN_CLUSTER.replace("10.0.0.2", "10.0.0.3");
    let applied = cluster.with_input("apply --server-side -f -", &moved);
    assert!(applied.stdout.contains("serverside-applied"), "{applied:?}");
    let patch = r#"{"spec":{"authUrl":"https://10.0.0.4:5870"}}"#;
    cluster.args(&["patch", "fc", "rome", "--type", "merge", "-p", patch]);
    let refused = cluster.with_input("apply --server-side -f -", &moved);
    assert!(
        refused.stderr.contains("conflict with \"kubectl-patch\""),
        "{refused:?}"
    );
    let forced = cluster.with_input("apply --server-side --force-conflicts -f -", &moved);
    assert!(forced.success, "{forced:?}");
    let url = cluster.ok("get fc rome -o jsonpath={.spec.authUrl}");
    assert_eq!(url, "https://10.0.0.3:5870");
    // What somebody who goes back to `apply` without the option starts from.
    let last = cluster.ok("apply view-last-applied fc rome");
    assert!(last.contains("https://10.0.0.3:5870"), "{last}");
    let managers =
        "get fc rome --show-managed-fields -o jsonpath={.metadata.managedFields[*].manager}";
    assert!(cluster.ok(managers).contains("kubectl"));
}

#[test]
fn auth_says_who_one_is_and_what_one_may() {
    let cluster = cluster!();
    assert_eq!(
        cluster.ok("auth can-i delete foreignclusters").trim(),
        "yes"
    );
    assert!(cluster.ok("auth whoami").contains("system:masters"));
    let bob = cluster.as_user("bob");
    let denied = bob("auth can-i delete foreignclusters");
    assert!(
        !denied.success && denied.stdout.trim() == "no",
        "{denied:?}"
    );
    let acting = cluster.run("auth can-i delete foreignclusters --as=bob");
    assert!(
        !acting.success && acting.stdout.trim() == "no",
        "{acting:?}"
    );
    let refused = bob("get ns --as=eve").stderr;
    assert!(
        refused.contains("cannot impersonate resource \"users\""),
        "{refused}"
    );
    let who = bob("auth whoami").stdout;
    assert!(who.contains("bob") && who.contains("dev"), "{who}");
    assert!(
        bob("get fc")
            .stderr
            .contains("User \"bob\" cannot list resource \"foreignclusters\"")
    );
    cluster.ok("create clusterrole reader --verb=get,list,watch --resource=foreignclusters");
    cluster.ok("create clusterrolebinding reader --clusterrole=reader --user=bob");
    assert!(bob("get fc").success);
    assert!(bob("auth can-i list foreignclusters").success);
    assert!(
        bob("auth can-i --list")
            .stdout
            .contains("foreignclusters.discovery.liqo.io")
    );
    assert!(
        bob("delete ns liqo")
            .stderr
            .contains("cannot delete resource")
    );
}

#[test]
fn the_server_is_asked_before_anything_is_made() {
    let cluster = cluster!();
    for what in [
        "namespace sea",
        "configmap sea --from-literal=a=b",
        "secret generic sea --from-literal=a=b",
        "serviceaccount sea",
    ] {
        cluster.ok(&format!("create {what} --dry-run=server"));
        cluster.ok(&format!("create {what}"));
    }
    assert!(
        cluster
            .ok("get cm,secret,sa")
            .contains("serviceaccount/sea")
    );
    cluster.apply(FOREIGN_CLUSTER);
    let scaled = cluster.run("scale fc rome --replicas=2");
    assert!(
        scaled
            .stderr
            .contains("could not find the requested resource"),
        "{scaled:?}"
    );
}
