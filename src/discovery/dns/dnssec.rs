//! Whether a domain is signed, for people, and records that DNSSEC proves. To be found a cluster
//! needs neither, since its key is proven in the handshake.

use std::{future::ready, pin::pin, time::Duration};

use futures::{StreamExt as _, stream::FuturesOrdered};
use hickory_proto::{
    dnssec::Proof,
    rr::{Name, RData, RecordType},
};
use hickory_resolver::{
    TokioResolver,
    net::{DnsError, NetError},
};
use tokio::time::timeout;

use super::{
    ask::{Reply, from_answers},
    servers::Servers,
};
use crate::engine::domain::Dnssec;

/// How long the chain of signatures may take. Without a way to the root there is none.
const PATIENCE: Duration = Duration::from_secs(4);

/// Asks for the domain's SOA record, which every zone has, and follows its signature: at the first
/// server that can tell. With the status comes that server.
pub(super) async fn status(servers: &Servers, domain: &Name) -> (Dnssec, Option<TokioResolver>) {
    let asked = servers
        .validators()
        .into_iter()
        .map(|validator| async move {
            let status = validate(&validator.following, domain).await;
            // Without a way to the anchor everything looks bogus, unsigned zones as well.
            let unfounded = status == Dnssec::Bogus
                && !servers.has_anchors()
                && !reaches_root(&validator.plain).await;
            let told = status != Dnssec::Indeterminate && !unfounded;
            told.then_some((status, Some(validator.following)))
        });
    // All at once: one that cannot tell takes its time, and the look waits for it.
    let told = asked.collect::<FuturesOrdered<_>>().filter_map(ready);
    pin!(told).next().await.unwrap_or_default()
}

/// Returns the records of a name, if everything that leads to them is proven: the answer and each
/// alias in it. Whatever else there is counts as no records.
pub(super) async fn secure(resolver: &TokioResolver, name: &Name, kind: RecordType) -> Vec<RData> {
    let Ok(Ok(lookup)) = timeout(PATIENCE, resolver.lookup(name.clone(), kind)).await else {
        return Vec::new();
    };
    let answers = lookup.answers();
    if !answers.iter().all(|record| record.proof == Proof::Secure) {
        return Vec::new();
    }
    match from_answers(name, kind, answers) {
        Reply::Said(answer) => answer.records,
        Reply::Unknown(_) | Reply::Wrong(_) | Reply::Silent(_) => Vec::new(),
    }
}

async fn reaches_root(resolver: &TokioResolver) -> bool {
    let keys = resolver.lookup(Name::root(), RecordType::DNSKEY);
    matches!(timeout(PATIENCE, keys).await, Ok(Ok(_)))
}

async fn validate(resolver: &TokioResolver, domain: &Name) -> Dnssec {
    match timeout(PATIENCE, resolver.lookup(domain.clone(), RecordType::SOA)).await {
        Ok(Ok(lookup)) => {
            let own = lookup.answers().iter();
            let own = own.filter(|record| record.record_type() == RecordType::SOA);
            own.map(|record| record.proof)
                .min()
                .map_or(Dnssec::Indeterminate, from_proof)
        }
        Ok(Err(NetError::Dns(DnsError::DnssecBogus))) => Dnssec::Bogus,
        Ok(Err(NetError::Dns(DnsError::Nsec { proof, .. }))) => from_proof(proof),
        Ok(Err(_)) | Err(_) => Dnssec::Indeterminate,
    }
}

fn from_proof(proof: Proof) -> Dnssec {
    match proof {
        Proof::Secure => Dnssec::Secure,
        Proof::Insecure => Dnssec::Insecure,
        Proof::Bogus => Dnssec::Bogus,
        Proof::Indeterminate => Dnssec::Indeterminate,
    }
}
