//! What `status` says, made of the objects.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use serde::Serialize;

use crate::{
    api::{
        ForeignCluster, SearchDomain, TunnelEndpoint,
        foreign_cluster::{ForeignClusterStatus, Phase},
        labels::{cluster_config, condition, reason, search_domain},
        network_config::UNCHANGED,
    },
    cli::{
        output::{self, Tone, tint},
        peers,
    },
    daemon::Description,
    telemetry::escape,
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
    /// What the daemon says about itself.
    #[serde(flatten)]
    description: Description,
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
    /// Whether something that was asked, here or there, does not work or waits for a person.
    #[serde(skip)]
    is_troubled: bool,
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
        description: Description,
        clusters: &[ForeignCluster],
        tunnels: &[TunnelEndpoint],
    ) -> Self {
        Self {
            description,
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
        let Description {
            dns_zone,
            dns_problem,
            ..
        } = &self.description;
        (dns_problem.is_empty() && !dns_zone.is_empty()).then_some(dns_zone)
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
        let domains = self.search_domains.iter().filter_map(Search::line);
        let peers = self.peers.iter().filter_map(Peer::line);
        let conditions = self.conditions.iter().filter_map(condition_line);
        let listing = self.listing_line().into_iter();
        let all = listing.chain(conditions).chain(domains).chain(peers);
        let lines: String = all.collect();
        if !lines.is_empty() {
            return lines;
        }
        let peered = self.peers.iter().filter(|peer| peer.is_peered()).count();
        let known = self.peers.len();
        let text = format!("all is well: {peered} of {known} known clusters peered");
        line(Tone::Good, &text)
    }

    /// Says why this cluster is not listed in the DNS domain where it should be.
    fn listing_line(&self) -> Option<String> {
        let Description {
            dns_zone,
            dns_problem,
            ..
        } = &self.description;
        if dns_zone.is_empty() || dns_problem.is_empty() {
            return None;
        }
        let text =
            format!("this cluster is not listed in the DNS domain {dns_zone}: {dns_problem}");
        Some(line(Tone::Care, &text))
    }

    fn myself(&self) -> String {
        let own = &self.description;
        let mut line = [&own.cluster_name, &own.cluster_id, &own.peer_endpoint]
            .map(|text| if text.is_empty() { "-" } else { text })
            .join("   ");
        if !own.tunnel_address.is_empty() {
            let (address, port) = (&own.tunnel_address, &own.tunnel_port);
            line = format!("{line}   tunnel {address} (udp {port})");
        }
        escape(&line) + "\n"
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

/// A line about how things are, with its sign.
fn line(tone: Tone, text: &str) -> String {
    let sign = match tone {
        Tone::Good => "√",
        Tone::Care => "‼",
        Tone::Bad => "×",
    };
    format!("{} {}\n", tint(sign, tone), escape(text))
}

/// Says what is not well with this cluster itself, unless somebody wanted it so.
fn condition_line(one: &Condition) -> Option<String> {
    if one.status == "True" || one.reason == cluster_config::SWITCHED_OFF {
        return None;
    }
    let tone = if one.reason == cluster_config::DUPLICATE_IDENTITY {
        Tone::Bad
    } else {
        Tone::Care
    };
    let text = format!("{} is {}: {}", one.type_, one.reason, one.message);
    Some(line(tone, &text))
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

    /// Says what could not be read.
    fn line(&self) -> Option<String> {
        let problem = self.problem.as_ref()?;
        let text = format!("SearchDomain {} ({}): {problem}", self.name, self.domain);
        Some(line(Tone::Care, &text))
    }
}

impl Peer {
    fn new(cluster: &ForeignCluster, tunnels: &[TunnelEndpoint]) -> Self {
        let id = peers::id(cluster).unwrap_or_default();
        let status = cluster.status.as_ref();
        let phase = status.and_then(|status| status.phase);
        let network = status.and_then(|status| status.network.as_ref());
        let tunnel = tunnels
            .iter()
            .find(|tunnel| !id.is_empty() && tunnel.spec.cluster_id == id)
            .filter(|_| network.is_some_and(|network| network.tunnel_endpoint.available));
        Self {
            name: cluster.name_any(),
            cluster_id: id.to_owned(),
            found_by: cluster.spec.discovery_type.as_str(),
            join: cluster.spec.join,
            is_denied: cluster.spec.is_denied(),
            is_troubled: is_troubled(cluster),
            state: phase.map_or("New", Phase::as_str),
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

    fn line(&self) -> Option<String> {
        let bad = [Phase::Unreachable, Phase::Refused, Phase::Degraded];
        let tone = if bad.map(Phase::as_str).contains(&self.state) {
            Tone::Bad
        } else {
            Tone::Care
        };
        Some(line(tone, &self.complaint()?))
    }

    /// Says what is wrong or waits for a person; a cluster that somebody denied is as it should be.
    fn complaint(&self) -> Option<String> {
        let reason = if self.why.is_empty() {
            String::new()
        } else {
            format!(": {}", self.why)
        };
        (self.is_troubled && !self.is_denied)
            .then(|| format!("{} is {}{reason}", self.name, self.state))
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

fn is_troubled(cluster: &ForeignCluster) -> bool {
    let status = cluster.status.as_ref();
    let phase = status.and_then(|status| status.phase);
    let has_digits = status.is_some_and(|status| status.approval_code.is_some());
    let is_asked = cluster.spec.join || status.is_some_and(serves);
    has_digits || phase == Some(Phase::Waiting) || (is_asked && phase != Some(Phase::Peered))
}

/// Whether the cluster uses what we offer.
fn serves(status: &ForeignClusterStatus) -> bool {
    status
        .incoming
        .as_ref()
        .is_some_and(|incoming| incoming.joined)
}

/// Tells the first thing on the road that is not so.
fn why(cluster: &ForeignCluster, status: &ForeignClusterStatus) -> String {
    let find = |kind: &str| -> Option<&Condition> {
        let mut conditions = status.conditions.iter();
        conditions.find(|condition| condition.type_ == kind && condition.status != "True")
    };
    // What was never asked for is not missing.
    let road = ROAD.iter().filter(|kind| match **kind {
        condition::OUTGOING_PEERED => cluster.spec.join,
        condition::NETWORK_READY => cluster.spec.join || serves(status),
        _ => true,
    });
    let refused =
        find(condition::OUTGOING_PEERED).filter(|one| one.reason == reason::REFUSED_BY_PEER);
    // Who came to us is not dialled, so that what is known of its place is no reason.
    let approval = find(condition::TRUSTED).filter(|_| status.approval_code.is_some());
    let first = refused.or(approval);
    match first.or_else(|| road.map(|kind| find(kind)).find_map(|found| found)) {
        Some(condition) if condition.message.is_empty() => condition.reason.clone(),
        Some(condition) => condition.message.clone(),
        None if cluster.spec.join || serves(status) => String::new(),
        None => format!("not asked for: landbridge join {}", cluster.name_any()),
    }
}

#[cfg(test)]
mod tests;
