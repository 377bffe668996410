//! Who owns which address range: checks a peer's claim and finds a free range to see the peer under.
//!
//! ```text
//! the peer claims 10.244.0.0/16 ---> private and of a sane size?  no ---> Refusal
//!                                    free here?                   yes --> Unchanged
//!                                    hash(own id, peer id) -----> first free range of that size
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::{IpNet, Ipv4Net};

use crate::api::identity::ClusterId;

/// Ranges shorter than this claim too much of the private space to be taken from a stranger.
pub const SHORTEST_PREFIX: u8 = 9;
/// Longer ranges have no room for a gateway and a pod.
pub const LONGEST_PREFIX: u8 = 30;
/// The size of the range that stands for what is outside of the pods' range.
pub const EXTERNAL_PREFIX: u8 = 24;

/// The ranges that remapped prefixes come from, in order (RFC 1918, section 3; Liqo's pools).
pub const POOLS: [Ipv4Net; 3] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
];
/// The shared address space of carriers, which clusters use for pods too (RFC 6598, section 7).
pub const SHARED_SPACE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);

/// What this machine sees around itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// The networks that it is on.
    pub networks: BTreeSet<Ipv4Net>,
    /// What else it reaches: see [`Ground::avoided`].
    pub avoided: BTreeSet<Ipv4Net>,
}

/// What is in use on our side, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ground {
    /// The id of this cluster.
    pub own_id: ClusterId,
    /// The range of our pods.
    pub pods: Ipv4Net,
    /// The range of our services, when there are any.
    pub services: Option<Ipv4Net>,
    /// Our external range, when one was chosen.
    pub external: Option<Ipv4Net>,
    /// The networks of our interfaces.
    pub networks: BTreeSet<Ipv4Net>,
    /// Resolvers, gateways, routes, nodes and peers. A range is chosen clear of them as long as there
    /// is one, since a route may be as wide as all pools; what was chosen before they came stays.
    pub avoided: BTreeSet<Ipv4Net>,
    /// What an administrator keeps for other things.
    pub reserved: BTreeSet<Ipv4Net>,
    /// Further ranges that remapped prefixes may come from.
    pub additional_pools: BTreeSet<Ipv4Net>,
    /// The ranges under which peers are seen already; the first owner keeps.
    pub given: BTreeMap<ClusterId, BTreeSet<Ipv4Net>>,
}

impl Ground {
    /// Starts with nothing in use but the pods' range.
    pub fn new(own_id: ClusterId, pods: Ipv4Net) -> Self {
        Self {
            own_id,
            pods: pods.trunc(),
            services: None,
            external: None,
            networks: BTreeSet::new(),
            avoided: BTreeSet::new(),
            reserved: BTreeSet::new(),
            additional_pools: BTreeSet::new(),
            given: BTreeMap::new(),
        }
    }

    /// Lists what a range for `peer` must not overlap.
    fn taken(&self, peer: Option<&ClusterId>) -> Vec<Ipv4Net> {
        let own = [Some(self.pods), self.services, self.external];
        let given = self
            .given
            .iter()
            .filter(|(owner, _)| Some(*owner) != peer)
            .flat_map(|(_, ranges)| ranges);
        own.into_iter()
            .flatten()
            .chain(self.networks.iter().copied())
            .chain(self.reserved.iter().copied())
            .chain(given.copied())
            .map(|range| range.trunc())
            .collect()
    }

    fn pools(&self) -> Vec<Ipv4Net> {
        let mut pools = POOLS.to_vec();
        for pool in &self.additional_pools {
            // A pool inside of another one would be walked twice.
            if !pools.iter().any(|known| overlap(known, pool)) {
                pools.push(pool.trunc());
            }
        }
        pools
    }
}

/// How a peer's range is seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remap {
    /// As the peer uses it itself.
    Unchanged,
    /// Under this range of the same size, one to one.
    To(Ipv4Net),
}

impl Remap {
    /// Returns the range under which `claim` is seen.
    pub fn apply(self, claim: Ipv4Net) -> Ipv4Net {
        match self {
            Self::Unchanged => claim,
            Self::To(range) => range,
        }
    }

    /// Reads the value of a NAT field, where `None` (the word) stands for unchanged.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        if text == crate::api::network_config::UNCHANGED {
            return Ok(Self::Unchanged);
        }
        check_claim(text).map(Self::To)
    }
}

impl fmt::Display for Remap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unchanged => formatter.write_str(crate::api::network_config::UNCHANGED),
            Self::To(range) => range.fmt(formatter),
        }
    }
}

/// Indicates that no tunnel can be made for a claimed range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Indicates that a text is no address range.
    #[error("{0:?} is not an address range such as 10.244.0.0/16")]
    NotARange(String),
    /// Indicates a range of IPv6, which tunnels do not carry yet.
    #[error("range {0} is IPv6, which tunnels do not carry yet; set an IPv4 podCIDR")]
    NotIpv4(IpNet),
    /// Indicates a range outside of 10/8, 172.16/12, 192.168/16 and 100.64/10.
    #[error(
        "range {0} is not private; use one inside 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10"
    )]
    NotPrivate(Ipv4Net),
    /// Indicates a range that is too large or too small.
    #[error("range {0} must have a prefix length from {SHORTEST_PREFIX} to {LONGEST_PREFIX}")]
    Size(Ipv4Net),
    /// Indicates that every range of this size is in use.
    #[error(
        "no range of the size of {0} is free; add a pool to spec.liqonetConfig.additionalPools of the ClusterConfig, or take one out of reservedSubnets"
    )]
    Exhausted(Ipv4Net),
}

/// Checks that a range is one that a stranger may claim, and returns it without host bits.
pub fn check_claim(text: &str) -> Result<Ipv4Net, Refusal> {
    let shown = || text.chars().take(64).collect();
    match text
        .parse::<IpNet>()
        .map_err(|_| Refusal::NotARange(shown()))?
    {
        IpNet::V4(range) => check_range(range),
        IpNet::V6(range) => Err(Refusal::NotIpv4(range.into())),
    }
}

/// Checks a parsed range like [`check_claim`].
pub fn check_range(range: Ipv4Net) -> Result<Ipv4Net, Refusal> {
    let range = range.trunc();
    let private = POOLS.iter().chain([&SHARED_SPACE]);
    if !private.into_iter().any(|space| space.contains(&range)) {
        return Err(Refusal::NotPrivate(range));
    }
    if !(SHORTEST_PREFIX..=LONGEST_PREFIX).contains(&range.prefix_len()) {
        return Err(Refusal::Size(range));
    }
    Ok(range)
}

/// Decides under which range a peer is seen.
///
/// The answer depends only on the arguments: the same ground, ids and claim give the same range in
/// every life of the daemon. A `previous` answer is kept as long as it is still free.
pub fn decide(
    ground: &Ground,
    peer: &ClusterId,
    claim: Ipv4Net,
    previous: Option<Remap>,
) -> Result<Remap, Refusal> {
    let claim = check_range(claim)?;
    let mut taken = ground.taken(Some(peer));
    match previous {
        Some(Remap::To(range))
            if range.prefix_len() == claim.prefix_len()
                && check_range(range).is_ok()
                && is_free(&taken, range) =>
        {
            return Ok(Remap::To(range.trunc()));
        }
        Some(Remap::Unchanged) if is_free(&taken, claim) => return Ok(Remap::Unchanged),
        _ => {}
    }
    let needed = taken.len();
    taken.extend(ground.avoided.iter().map(Ipv4Net::trunc));
    choose(ground, peer, claim, &taken)
        .or_else(|| {
            taken.truncate(needed);
            choose(ground, peer, claim, &taken)
        })
        .ok_or(Refusal::Exhausted(claim))
}

fn choose(ground: &Ground, peer: &ClusterId, claim: Ipv4Net, taken: &[Ipv4Net]) -> Option<Remap> {
    if is_free(taken, claim) {
        return Some(Remap::Unchanged);
    }
    let seed = hash(&[ground.own_id.as_str(), peer.as_str()]);
    first_free(&ground.pools(), taken, claim.prefix_len(), seed).map(Remap::To)
}

fn is_free(taken: &[Ipv4Net], range: Ipv4Net) -> bool {
    !taken.iter().any(|used| overlap(used, &range))
}

/// Chooses our external range: a small free one that stays the same for the same ground.
pub fn external_range(ground: &Ground) -> Option<Ipv4Net> {
    let seed = hash(&[ground.own_id.as_str(), "external"]);
    first_free(&ground.pools(), &ground.taken(None), EXTERNAL_PREFIX, seed)
}

/// Returns whether two ranges share an address.
pub fn overlap(one: &Ipv4Net, other: &Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// Returns the range that holds nothing but an address, if it is one that a range could hold.
pub fn place(address: IpAddr) -> Option<Ipv4Net> {
    match address.to_canonical() {
        IpAddr::V4(address) => Some(address.into()),
        IpAddr::V6(_) => None,
    }
}

/// Walks all ranges of one size through all pools, from a start given by `seed`, to a free one.
fn first_free(pools: &[Ipv4Net], taken: &[Ipv4Net], prefix: u8, seed: u64) -> Option<Ipv4Net> {
    let fitting: Vec<(Ipv4Net, u64)> = pools
        .iter()
        .filter(|pool| pool.prefix_len() <= prefix)
        .map(|pool| (*pool, 1_u64 << (prefix - pool.prefix_len())))
        .collect();
    let total: u64 = fitting.iter().map(|(_, count)| count).sum();
    if total == 0 {
        return None;
    }
    let start = seed % total;
    let mut walked = 0;
    while walked < total {
        let (candidate, left_in_pool) = at(&fitting, prefix, (start + walked) % total)?;
        match taken.iter().find(|used| overlap(used, &candidate)) {
            None => return Some(candidate),
            // A larger range in use is passed in one step, so that the walk stays short.
            Some(used) => walked += steps_past(candidate, *used).min(left_in_pool),
        }
    }
    None
}

/// Returns the range at an index of the concatenated pools, and how many follow it in its pool,
/// itself included.
fn at(pools: &[(Ipv4Net, u64)], prefix: u8, index: u64) -> Option<(Ipv4Net, u64)> {
    let mut index = index;
    for (pool, count) in pools {
        if index < *count {
            let offset = u32::try_from(index << (32 - prefix)).ok()?;
            let address = u32::from(pool.network()).checked_add(offset)?;
            let range = Ipv4Net::new(Ipv4Addr::from(address), prefix).ok()?;
            return Some((range, count - index));
        }
        index -= count;
    }
    None
}

fn steps_past(candidate: Ipv4Net, used: Ipv4Net) -> u64 {
    if used.prefix_len() >= candidate.prefix_len() {
        return 1;
    }
    let last = u64::from(u32::from(used.broadcast()));
    let first = u64::from(u32::from(candidate.network()));
    (last - first + 1) >> (32 - candidate.prefix_len())
}

fn hash(parts: &[&str]) -> u64 {
    let text = parts.join("\n");
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest
        .as_ref()
        .iter()
        .take(8)
        .fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests;
