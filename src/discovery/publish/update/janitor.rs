//! What an earlier identity of this machine has left in the zone, and its removal.
//!
//! `<mark of the machine>.machine.ZONE` lists in TXT records which ids this machine has published. An
//! id that is not ours any more is stale when its records also lead to where we are: then they can
//! lead to nobody else. The mark alone is not enough, since copies of a machine share it.

use std::collections::BTreeSet;

use hickory_proto::{
    op::UpdateMessage as _,
    rr::{Name, RData, Record, RecordType, rdata::SRV},
};

use super::{MARK, Publisher, UpdateError, mark, without};
use crate::{
    api::identity::ClusterId,
    discovery::dns::{Servers, lookup},
    engine::domain::{
        Problem, SERVICE_TYPES,
        zone::{Listing, TTL},
    },
};

/// The most earlier identities that are looked at.
const LIMIT: usize = 8;

/// Indicates that the zone could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum JanitorError {
    #[error(transparent)]
    Update(#[from] UpdateError),
    #[error("{0}")]
    Read(String),
}

impl From<Problem> for JanitorError {
    fn from(problem: Problem) -> Self {
        let (Problem::Lasting(why) | Problem::Passing(why)) = problem;
        Self::Read(why)
    }
}

/// Takes back what earlier identities of this machine have left, and lists our own.
pub(super) async fn sweep(
    publisher: &Publisher,
    listing: &Listing,
    machine: &str,
) -> Result<(), JanitorError> {
    let list = publisher.name(&format!("{machine}.machine"))?;
    let known = ids(&publisher.read(&list, RecordType::TXT).await?);
    for id in known
        .iter()
        .filter(|id| **id != listing.cluster_id)
        .take(LIMIT)
    {
        if !is_stale(publisher, listing, id).await? {
            continue;
        }
        let old = Listing {
            cluster_id: id.clone(),
            ..listing.clone()
        };
        publisher.withdraw_records(&old).await?;
        change(publisher, without(&list, mark(id))).await?;
        let zone = super::text(&publisher.zone);
        tracing::info!(zone, earlier = %id, "Records of an earlier identity removed");
    }
    if known.contains(&listing.cluster_id) {
        return Ok(());
    }
    change(
        publisher,
        Record::from_rdata(list, TTL, mark(&listing.cluster_id)),
    )
    .await
}

/// Takes an id off the machine's list.
pub(super) async fn forget(
    publisher: &Publisher,
    id: &ClusterId,
    machine: &str,
) -> Result<(), JanitorError> {
    let list = publisher.name(&format!("{machine}.machine"))?;
    change(publisher, without(&list, mark(id))).await
}

async fn change(publisher: &Publisher, record: Record) -> Result<(), JanitorError> {
    let mut message = publisher.message();
    message.add_update(record);
    publisher.send(message).await?;
    Ok(())
}

/// Whether the records of another id lead to our own endpoint, or are gone.
async fn is_stale(
    publisher: &Publisher,
    listing: &Listing,
    id: &ClusterId,
) -> Result<bool, JanitorError> {
    let services = services(publisher, id).await?;
    if services.is_empty() {
        return Ok(true);
    }
    let our_target = publisher.name(&listing.target())?;
    if services
        .iter()
        .any(|service| service.port != listing.port())
    {
        return Ok(false);
    }
    if services.iter().all(|service| service.target == our_target) {
        return Ok(true);
    }
    let host = publisher.name(&format!("{id}.host"))?;
    let mut addresses = publisher.read(&host, RecordType::A).await?;
    addresses.extend(publisher.read(&host, RecordType::AAAA).await?);
    let ours = listing.addresses();
    let mut theirs = addresses.iter().filter_map(RData::ip_addr).peekable();
    Ok(theirs.peek().is_some() && theirs.all(|address| ours.contains(&address)))
}

/// Returns the names of the keys that belong to what the zone says of an id at present, which may be
/// another port than ours.
pub(super) async fn keys(publisher: &Publisher, id: &ClusterId) -> Result<Vec<Name>, JanitorError> {
    let host = publisher.name(&format!("{id}.host"))?;
    let mut keys = Vec::new();
    for service in services(publisher, id).await? {
        let key = publisher.name(&format!("_{}._tcp.{id}.host", service.port))?;
        if service.target == host {
            keys.push(key);
        }
    }
    Ok(keys)
}

/// Reads where the records of an id lead, in whatever style.
async fn services(publisher: &Publisher, id: &ClusterId) -> Result<Vec<SRV>, JanitorError> {
    let mut services = Vec::new();
    for place in SERVICE_TYPES
        .map(|kind| format!("{id}.{kind}"))
        .iter()
        .chain([&id.to_string()])
    {
        let name = publisher.name(place)?;
        let records = publisher.read(&name, RecordType::SRV).await?;
        services.extend(records.into_iter().filter_map(|data| {
            let RData::SRV(service) = data else {
                return None;
            };
            Some(service)
        }));
    }
    Ok(services)
}

fn ids(records: &[RData]) -> BTreeSet<ClusterId> {
    let texts = records.iter().filter_map(|data| {
        let RData::TXT(text) = data else { return None };
        let first = text.txt_data.first()?;
        std::str::from_utf8(first)
            .ok()?
            .strip_prefix(MARK)?
            .parse()
            .ok()
    });
    texts.collect()
}

impl Publisher {
    /// Reads what the zone says at present.
    async fn read(&self, name: &Name, kind: RecordType) -> Result<Vec<RData>, Problem> {
        let servers = Servers::parse(&[self.server.to_string()])
            .map_err(|error| Problem::Passing(error.to_string()))?;
        lookup(&servers, name, kind).await
    }
}
