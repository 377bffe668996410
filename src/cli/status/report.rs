//! What `status` says, made of the objects.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use serde::Serialize;

use crate::{
    api::{
        ForeignCluster, SearchDomain, TunnelEndpoint,
        foreign_cluster::{ForeignClusterStatus, IncomingPeering, Phase},
        labels::{cluster_config, condition, reason, search_domain},
        network_config::UNCHANGED,
    },
    cli::{
        output::{self, Tone, tint},
        peers,
    },
};

/// The conditions that the road to a peering passes, in order.
const ROAD: [&str; 6] = [
    condition::DISCOVERED,
    condition::ENDPOINT_REACHABLE,
    condition::IDENTITY_VERIFIED,
    condition::TRUSTED,
    condition::OUTGOING_PEERED,
    condition::NETWORK_READY,
];

/// The state of a daemon and of the clusters that it knows.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Report {
    /// Why the daemon is not ready, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_ready: Option<String>,
    /// What the daemon says about itself: clusterName, clusterID, version, peerEndpoint,
    /// tunnelPort, tunnelAddress, apiServer, publicKey; dnsZone and dnsProblem where it is to be
    /// listed in a zone.
    #[serde(flatten)]
    about: BTreeMap<String, String>,
    /// How this cluster itself does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conditions: Vec<Condition>,
    /// Where clusters are looked for in DNS.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    search_domains: Vec<Search>,
    /// The other clusters.
    pub(in crate::cli) peers: Vec<Peer>,
}

/// A DNS domain in which clusters are looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Search {
    /// The name of the SearchDomain.
    name: String,
    domain: String,
    /// How many of its entries lead to a cluster's endpoint.
    found: u32,
    /// Why not everything in it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// One other cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Peer {
    /// The name of its object.
    pub(in crate::cli) name: String,
    #[serde(rename = "clusterID")]
    cluster_id: String,
    found_by: &'static str,
    join: bool,
    /// Whether a person said no to it, so that nothing of it is missing.
    #[serde(skip)]
    is_denied: bool,
    /// Whether a person has to compare digits, though nothing may have been asked of it here.
    #[serde(skip)]
    has_digits: bool,
    /// The state in one word.
    pub(in crate::cli) state: &'static str,
    /// The address of its machine through the tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) address: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt: Option<String>,
    /// Why it is not further.
    why: String,
}

impl Report {
    /// Puts together what was read.
    pub(super) fn new(
        not_ready: Option<String>,
        about: BTreeMap<String, String>,
        clusters: &[ForeignCluster],
        tunnels: &[TunnelEndpoint],
    ) -> Self {
        Self {
            not_ready,
            about,
            conditions: Vec::new(),
            search_domains: Vec::new(),
            peers: clusters
                .iter()
                .map(|cluster| Peer::new(cluster, tunnels))
                .collect(),
        }
    }

    /// Adds how this cluster itself does.
    pub(super) fn with_conditions(mut self, conditions: Vec<Condition>) -> Self {
        self.conditions = conditions;
        self
    }

    /// Adds where clusters are looked for in DNS.
    pub(super) fn with_search_domains(mut self, domains: &[SearchDomain]) -> Self {
        self.search_domains = domains.iter().map(Search::new).collect();
        self
    }

    /// Says what is missing until everything that is asked for is peered.
    pub(super) fn missing(&self) -> Option<String> {
        if let Some(reason) = &self.not_ready {
            return Some(format!("the daemon is not ready: {reason}"));
        }
        let wanted = self
            .peers
            .iter()
            .filter(|peer| peer.join && !peer.is_denied);
        let mut wanted = wanted.peekable();
        if wanted.peek().is_none() {
            return Some("no cluster is to be joined yet".to_owned());
        }
        let missing: Vec<String> = wanted.filter_map(Peer::complaint).collect();
        (!missing.is_empty()).then(|| missing.join("; "))
    }

    /// Returns the DNS domain that the daemon is listed in, if it is to be and is.
    pub(in crate::cli) fn listed_in(&self) -> Option<&str> {
        let well = self.about.get("dnsProblem").is_some_and(String::is_empty);
        let zone = self
            .about
            .get("dnsZone")
            .filter(|zone| well && !zone.is_empty());
        zone.map(String::as_str)
    }

    /// Writes the report for people: what is not well comes first.
    pub(in crate::cli) fn text(&self) -> String {
        let mut text = self.health();
        text.push_str(&self.myself());
        if !self.peers.is_empty() {
            text.push('\n');
            text.push_str(&self.table());
        }
        text
    }

    fn health(&self) -> String {
        let mut lines = Vec::new();
        if let Some(reason) = &self.not_ready {
            let sign = tint("×", Tone::Bad);
            lines.push(format!("{sign} the daemon is not ready: {reason}\n"));
        }
        let say = |key: &str| self.about.get(key).filter(|text| !text.is_empty());
        if let (Some(zone), Some(problem)) = (say("dnsZone"), say("dnsProblem")) {
            let text = format!("this cluster is not listed in the DNS domain {zone}: {problem}");
            let sign = tint("‼", Tone::Care);
            lines.push(format!("{sign} {}\n", crate::telemetry::escape(&text)));
        }
        for one in self.conditions.iter().filter(|one| one.status != "True") {
            // Somebody wanted it so.
            if one.reason != cluster_config::SWITCHED_OFF {
                let text = format!("{} is {}: {}", one.type_, one.reason, one.message);
                let sign = if one.reason == cluster_config::DUPLICATE_IDENTITY {
                    tint("×", Tone::Bad)
                } else {
                    tint("‼", Tone::Care)
                };
                lines.push(format!("{sign} {}\n", crate::telemetry::escape(&text)));
            }
        }
        for search in &self.search_domains {
            if let Some(problem) = &search.problem {
                let text = format!(
                    "SearchDomain {} ({}): {problem}",
                    search.name, search.domain
                );
                let sign = tint("‼", Tone::Care);
                lines.push(format!("{sign} {}\n", crate::telemetry::escape(&text)));
            }
        }
        for peer in &self.peers {
            if let Some(complaint) = peer.complaint() {
                let sign = match peer.state {
                    "Unreachable" | "Refused" | "Degraded" => tint("×", Tone::Bad),
                    _ => tint("‼", Tone::Care),
                };
                lines.push(format!("{sign} {}\n", crate::telemetry::escape(&complaint)));
            }
        }
        if lines.is_empty() {
            let sign = tint("√", Tone::Good);
            let peered = self.peers.iter().filter(|peer| peer.is_peered()).count();
            let known = self.peers.len();
            lines.push(format!(
                "{sign} all is well: {peered} of {known} known clusters peered\n"
            ));
        }
        lines.concat()
    }

    fn myself(&self) -> String {
        let say = |key: &str| self.about.get(key).map_or("-", String::as_str);
        let mut line = format!(
            "{}   {}   {}",
            say("clusterName"),
            say("clusterID"),
            say("peerEndpoint")
        );
        if let Some(address) = self
            .about
            .get("tunnelAddress")
            .filter(|text| !text.is_empty())
        {
            line = format!("{line}   tunnel {address} (udp {})", say("tunnelPort"));
        }
        crate::telemetry::escape(&line) + "\n"
    }

    fn table(&self) -> String {
        let heading = ["CLUSTER", "FOUND BY", "STATE", "ADDRESS", "TUNNEL", "WHY"];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        for peer in &self.peers {
            rows.push(vec![
                peer.name.clone(),
                peer.found_by.to_owned(),
                peer.state.to_owned(),
                peer.address
                    .map_or_else(|| "-".to_owned(), |address| address.to_string()),
                peer.rtt.clone().unwrap_or_else(|| "-".to_owned()),
                peer.why.clone(),
            ]);
        }
        output::table(&rows)
    }
}

impl Search {
    fn new(object: &SearchDomain) -> Self {
        let status = object.status.as_ref();
        let mut conditions = status.iter().flat_map(|status| &status.conditions);
        let answered = conditions
            .find(|condition| condition.type_ == search_domain::ANSWERED)
            .filter(|condition| condition.status != "True");
        Self {
            name: object.name_any(),
            domain: object.spec.domain.clone(),
            found: status.and_then(|status| status.found).unwrap_or_default(),
            problem: answered.map(|condition| condition.message.clone()),
        }
    }
}

impl Peer {
    fn new(cluster: &ForeignCluster, tunnels: &[TunnelEndpoint]) -> Self {
        let id = peers::id(cluster).unwrap_or_default();
        let status = cluster.status.as_ref();
        let network = status.and_then(|status| status.network.as_ref());
        let tunnel = tunnels
            .iter()
            .find(|tunnel| !id.is_empty() && tunnel.spec.cluster_id == id);
        Self {
            name: cluster.name_any(),
            cluster_id: id.to_owned(),
            found_by: cluster.spec.discovery_type.as_str(),
            join: cluster.spec.join,
            has_digits: status.is_some_and(|status| status.approval_code.is_some()),
            is_denied: cluster.spec.incoming_peering_enabled == IncomingPeering::No,
            state: status
                .and_then(|status| status.phase)
                .map_or("New", Phase::as_str),
            address: tunnel.and_then(machine_address),
            rtt: network.and_then(|network| network.rtt.clone()),
            why: status
                .map(|status| why(cluster, status))
                .unwrap_or_default(),
        }
    }

    /// Returns whether everything that was asked of the cluster works.
    pub(in crate::cli) fn is_peered(&self) -> bool {
        self.state == Phase::Peered.as_str()
    }

    /// Says what is not well; a cluster of which nothing is asked is well.
    fn complaint(&self) -> Option<String> {
        let waits = self.has_digits || self.state == Phase::Waiting.as_str();
        let troubled = !self.is_denied && ((self.join && !self.is_peered()) || waits);
        let reason = if self.why.is_empty() {
            String::new()
        } else {
            format!(": {}", self.why)
        };
        troubled.then(|| format!("{} is {}{reason}", self.name, self.state))
    }
}

/// Returns the address of the peer's machine: the first of its range as we see it, once that is
/// decided. What it claims itself may be the range of somebody else.
fn machine_address(tunnel: &TunnelEndpoint) -> Option<Ipv4Addr> {
    let seen = match tunnel.status.as_ref()?.remote_nat_pod_cidr.as_deref()? {
        UNCHANGED => &tunnel.spec.pod_cidr,
        range => range,
    };
    seen.parse::<Ipv4Net>().ok()?.hosts().next()
}

/// Tells the first thing on the road that is not so.
fn why(cluster: &ForeignCluster, status: &ForeignClusterStatus) -> String {
    let find = |kind: &str| -> Option<&Condition> {
        let mut conditions = status.conditions.iter();
        conditions.find(|condition| condition.type_ == kind && condition.status != "True")
    };
    let road = ROAD.iter().filter(|kind| {
        // What was never asked for is not missing.
        cluster.spec.join
            || !matches!(
                **kind,
                condition::OUTGOING_PEERED | condition::NETWORK_READY
            )
    });
    let refused =
        find(condition::OUTGOING_PEERED).filter(|one| one.reason == reason::REFUSED_BY_PEER);
    // Who came to us is not dialled, so that what is known of its place is no reason.
    let approval = find(condition::TRUSTED).filter(|_| status.approval_code.is_some());
    let first = refused.or(approval);
    match first.or_else(|| road.map(|kind| find(kind)).find_map(|found| found)) {
        Some(condition) if condition.message.is_empty() => condition.reason.clone(),
        Some(condition) => condition.message.clone(),
        None if cluster.spec.join => String::new(),
        None => format!("not asked for: landbridge join {}", cluster.name_any()),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;
    use crate::api::foreign_cluster::Network;

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
    fn a_zone_that_does_not_list_us_is_told() {
        let mut report = report(&[cluster("milan", true, Some(Phase::Peered), &[])]);
        let mut say = |key: &str, text: &str| report.about.insert(key.to_owned(), text.to_owned());
        say("dnsZone", "a.test");
        say("dnsProblem", "");
        assert!(report.text().starts_with("√ all is well"));
        report
            .about
            .insert("dnsProblem".to_owned(), "TSIG key rejected".to_owned());
        let complaint =
            "‼ this cluster is not listed in the DNS domain a.test: TSIG key rejected\n";
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
        let complaint =
            "‼ SearchDomain clusters (a.test): the name server 10.0.0.53 does not answer\n";
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
        let about = [
            ("clusterName", "rome"),
            ("clusterID", "aa"),
            ("peerEndpoint", "https://10.77.0.1:5870"),
            ("tunnelAddress", "10.244.0.1"),
            ("tunnelPort", "5871"),
        ];
        let about = about.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut tunnel = TunnelEndpoint::default();
        tunnel.spec.cluster_id = "bb".to_owned();
        tunnel.spec.pod_cidr = "10.244.0.0/16".to_owned();
        tunnel.status = serde_json::from_value(json!({"remoteNATPodCIDR": "10.71.0.0/16"})).ok();
        Report::new(None, about.into(), clusters, &[tunnel])
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
}
