//! What is told of which clusters.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::*;
use crate::api::foreign_cluster::{IncomingPeering, Network, ResourceLink};

#[test]
fn a_peered_cluster_is_well_and_has_an_address() {
    let report = report(&[cluster("milan", true, Some(Phase::Peered), &[])]);
    assert_eq!(report.missing(), None);
    assert_eq!(
        report.text(),
        "√ all is well: 1 of 1 known clusters peered\n\
         rome   aa   https://10.77.0.1:5870   tunnel 10.244.0.1 (udp 5871)\n\n\
         CLUSTER   FOUND BY   STATE    ADDRESS     TUNNEL   WHY\n\
         milan     Manual     Peered   10.71.0.1   0.6 ms\n"
    );
    assert_eq!(
        serde_json::to_value(&report).expect("JSON")["tunnelPort"],
        json!("5871")
    );
}

#[test]
fn an_object_beside_the_one_that_has_the_tunnel_has_no_address() {
    let mut copy = cluster("a-copy", true, Some(Phase::Waiting), &[]);
    copy.status.as_mut().expect("a status").network = None;
    let peered = cluster("milan", true, Some(Phase::Peered), &[]);
    let told = report(&[copy, peered]).text();
    let lines = told.lines().filter(|line| line.contains("10.71.0.1"));
    let names: Vec<_> = lines.map(|line| line.split(' ').next()).collect();
    assert_eq!(names, [Some("milan")], "{told}");
}

#[test]
fn a_zone_that_does_not_list_us_is_told() {
    let mut report = report(&[cluster("milan", true, Some(Phase::Peered), &[])]);
    report.description.dns_zone = "a.test".to_owned();
    assert!(report.text().starts_with("√ all is well"));
    report.description.dns_problem = "TSIG key rejected".to_owned();
    let complaint = "‼ this cluster is not listed in the DNS domain a.test: TSIG key rejected\n";
    assert!(report.text().starts_with(complaint), "{}", report.text());
}

#[test]
fn what_ails_this_cluster_is_told_unless_somebody_wanted_it_so() {
    let condition = |reason: &str| Condition {
        type_: cluster_config::LAN_DISCOVERY.to_owned(),
        status: "False".to_owned(),
        reason: reason.to_owned(),
        message: "why".to_owned(),
        ..serde_json::from_value(json!({"lastTransitionTime": "2026-01-01T00:00:00Z",
            "message": "", "reason": "", "status": "", "type": ""}))
        .unwrap()
    };
    let off = report(&[]).with_conditions(vec![condition(cluster_config::SWITCHED_OFF)]);
    assert!(off.text().starts_with("√ all is well"), "{}", off.text());
    let taken = report(&[]).with_conditions(vec![condition(cluster_config::PORT_TAKEN)]);
    let complaint = "‼ LanDiscovery is PortTaken: why\n";
    assert!(taken.text().starts_with(complaint), "{}", taken.text());
}

#[test]
fn a_search_domain_that_is_not_answered_is_told() {
    let domain = |status: &str| -> SearchDomain {
        let condition = json!({"type": "Answered", "status": status, "reason": "R",
            "message": "the name server 10.0.0.53 does not answer", "lastTransitionTime": "2026-11-21T00:00:00Z"});
        let object = json!({"metadata": {"name": "clusters"},
            "spec": {"domain": "a.test", "autojoin": true},
            "status": {"found": 2, "conditions": [condition]}});
        serde_json::from_value(object).expect("a SearchDomain")
    };
    let well = report(&[]).with_search_domains(&[domain("True")]);
    assert!(well.text().starts_with('√'), "{}", well.text());
    let value = serde_json::to_value(&well).expect("JSON");
    assert_eq!(value["searchDomains"][0]["found"], 2);
    let silent = report(&[]).with_search_domains(&[domain("False")]);
    let complaint = "‼ SearchDomain clusters (a.test): the name server 10.0.0.53 does not answer\n";
    assert!(silent.text().starts_with(complaint), "{}", silent.text());
}

#[test]
fn the_first_broken_link_is_told_first() {
    let broken = [
        (condition::DISCOVERED, "True", "seen"),
        (condition::TRUSTED, "False", "a person has to approve it"),
        (condition::NETWORK_READY, "False", "no tunnel is wanted"),
    ];
    let report = report(&[cluster("milan", true, Some(Phase::Waiting), &broken)]);
    let complaint = "milan is Waiting: a person has to approve it";
    assert_eq!(report.missing().as_deref(), Some(complaint));
    assert!(report.text().starts_with(&format!("‼ {complaint}\n")));
}

#[test]
fn waiting_needs_something_that_was_asked_for() {
    let idle = report(&[cluster("milan", false, Some(Phase::Discovered), &[])]);
    assert_eq!(
        idle.missing().as_deref(),
        Some("no cluster is to be joined yet")
    );
    assert!(idle.text().contains("not asked for: landbridge join milan"));
    assert!(idle.text().starts_with("√"));
    let fresh = report(&[cluster("milan", true, None, &[])]);
    assert_eq!(fresh.missing().as_deref(), Some("milan is New"));
}

#[test]
fn a_visitor_that_waits_for_a_person_is_told() {
    let conditions = [
        (condition::ENDPOINT_REACHABLE, "Unknown", "it is not tried"),
        (condition::TRUSTED, "False", "a person has to approve it"),
    ];
    let mut visitor = cluster("milan", false, Some(Phase::Discovered), &conditions);
    let quiet = report(std::slice::from_ref(&visitor));
    assert!(quiet.text().starts_with('√'), "{}", quiet.text());
    let status = visitor.status.as_mut().expect("a status");
    status.approval_code = Some("483920".to_owned());
    let told = report(&[visitor]).text();
    let complaint = "‼ milan is Discovered: a person has to approve it\n";
    assert!(told.starts_with(complaint), "{told}");
}

#[test]
fn a_tunnel_that_fails_a_cluster_that_we_serve_is_told() {
    let conditions = [
        (condition::OUTGOING_PEERED, "False", "it is not asked"),
        (condition::NETWORK_READY, "False", "no echo comes back"),
    ];
    let serve = |phase: Phase| {
        let mut served = cluster("milan", false, Some(phase), &conditions);
        let status = served.status.as_mut().expect("a status");
        status.incoming = serde_json::from_value(json!({"joined": true})).expect("incoming");
        report(&[served]).text()
    };
    for phase in [Phase::Degraded, Phase::Joining] {
        let told = serve(phase);
        let complaint = format!("milan is {}: no echo comes back\n", phase.as_str());
        let line = told.lines().next().unwrap_or_default();
        assert!(line.ends_with(complaint.trim_end()), "{told}");
    }
    assert!(serve(Phase::Peered).starts_with('√'));
}

#[test]
fn a_cluster_that_was_denied_is_as_it_should_be() {
    let mut denied = cluster("milan", true, Some(Phase::Refused), &[]);
    denied.spec.incoming_peering_enabled = IncomingPeering::No;
    let peered = cluster("turin", true, Some(Phase::Peered), &[]);
    let report = report(&[denied, peered]);
    assert_eq!(report.missing(), None);
    let all_is_well = "√ all is well: 1 of 2 known clusters peered\n";
    assert!(report.text().starts_with(all_is_well), "{}", report.text());
}

fn report(clusters: &[ForeignCluster]) -> Report {
    let description = Description {
        cluster_name: "rome".to_owned(),
        cluster_id: "aa".to_owned(),
        peer_endpoint: "https://10.77.0.1:5870".to_owned(),
        tunnel_address: "10.244.0.1".to_owned(),
        tunnel_port: "5871".to_owned(),
        ..Description::default()
    };
    let mut tunnel = TunnelEndpoint::default();
    tunnel.spec.cluster_id = "bb".to_owned();
    tunnel.spec.pod_cidr = "10.244.0.0/16".to_owned();
    tunnel.status = serde_json::from_value(json!({"remoteNATPodCIDR": "10.71.0.0/16"})).ok();
    Report::new(description, clusters, &[tunnel])
}

fn cluster(
    name: &str,
    join: bool,
    phase: Option<Phase>,
    conditions: &[(&str, &str, &str)],
) -> ForeignCluster {
    let mut cluster = ForeignCluster::default();
    cluster.metadata.name = Some(name.to_owned());
    cluster.spec.join = join;
    cluster.spec.cluster_identity = serde_json::from_value(json!({"clusterID": "bb"})).ok();
    let network = Network {
        tunnel_endpoint: ResourceLink {
            available: true,
            reference: None,
        },
        rtt: Some("0.6 ms".to_owned()),
        ..Network::default()
    };
    let conditions = conditions.iter().map(|(kind, status, message)| Condition {
        type_: (*kind).to_owned(),
        status: (*status).to_owned(),
        message: (*message).to_owned(),
        reason: "Reason".to_owned(),
        last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
        observed_generation: None,
    });
    cluster.status = Some(ForeignClusterStatus {
        phase,
        network: Some(network),
        conditions: conditions.collect(),
        ..ForeignClusterStatus::default()
    });
    cluster
}
